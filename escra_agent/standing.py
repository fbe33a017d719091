"""Whom this agent follows, and what it does when left alone.  Pure but for ``StandingFile``.

Both outlive the agent: one that was killed must not obey a controller that had been superseded, and must
still give way when its lease is over, for the controller counts on that (see Absence there).
"""

import time
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from escra_common.atomicfile import write_atomically
from escra_common.errors import EscraError
from escra_common.messages import AppTerms, Count, Epoch, Hello, Text

# A stamp on disk may be this old: the lease of an agent that was killed ends so much earlier, never later.
STAMP_EVERY_S = 10.0


class StandingError(EscraError):
    """It cannot be written; what it says holds until this process ends."""


class Standing(msgspec.Struct, forbid_unknown_fields=True):
    """``epoch`` is the leadership last obeyed and ``leader`` the host that had it; ``terms`` by application.

    ``heard_s``: when the controller last was sure to know of this agent (seconds of CLOCK_BOOTTIME, which
    goes on while the machine sleeps).  ``hosts`` is how many the controller of ``hosts_epoch`` counted.
    """

    boot_id: Annotated[str, Meta(max_length=100)] = ""
    epoch: Epoch = 0
    leader: Text = ""
    terms: list[AppTerms] = []
    heard_s: float = 0.0
    hosts: Count = 0
    hosts_epoch: Epoch = 0

    def objection(self, controller: Hello) -> str:
        """Why this controller is not to be obeyed; "" when it is."""
        if controller.standby:
            return f"{controller.host} is a standby"
        if controller.epoch < self.epoch:
            return (
                f"{controller.host} leads epoch {controller.epoch}, but {self.leader} has taken over "
                f"with epoch {self.epoch}"
            )
        if controller.epoch == self.epoch and self.leader not in ("", controller.host):
            return (
                f"{controller.host} is a second controller: this agent follows {self.leader}; if "
                f"{controller.host} is to take over, run `escra-controller promote` there"
            )
        return ""

    def lapsed(self, now_s: float) -> list[AppTerms]:
        """The applications whose lease is over, and that want something done about it."""
        return [t for t in self.terms if t.fallback != "hold" and now_s - self.heard_s > t.lease_s]


class StandingFile:
    """``standing`` as kept in ``path``; a file that cannot be used is reported and begun anew."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._saved_s = float("-inf")
        self.standing = Standing(boot_id)
        self.trouble = ""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Standing)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            self.trouble = f"cannot use {path}, so an older controller might be obeyed: {error}"
            return
        # After a reboot no container holds a limit of ours, and the clock began anew.
        if found.boot_id != boot_id:
            found = msgspec.structs.replace(found, boot_id=boot_id, terms=[], heard_s=0.0)
        self.standing = found

    # Each says whether there is something to save.

    def follow(self, controller: Hello) -> bool:
        standing = self.standing
        before = standing.epoch, standing.leader
        standing.epoch, standing.leader = controller.epoch, controller.host
        return before != (standing.epoch, standing.leader)

    def agree(self, terms: list[AppTerms]) -> bool:
        before, self.standing.terms = self.standing.terms, terms
        return before != terms

    def counted(self, hosts: int) -> bool:
        standing = self.standing
        before = standing.hosts, standing.hosts_epoch
        standing.hosts, standing.hosts_epoch = hosts, standing.epoch
        return before != (standing.hosts, standing.hosts_epoch)

    def heard(self, at_s: float) -> bool:
        standing = self.standing
        standing.heard_s = max(standing.heard_s, at_s)
        waits = any(t.fallback != "hold" for t in standing.terms)
        return waits and standing.heard_s - self._saved_s >= STAMP_EVERY_S

    def save(self) -> None:
        """Raises StandingError."""
        self._saved_s = self.standing.heard_s
        try:
            write_atomically(self._path, msgspec.json.encode(self.standing))
        except OSError as error:
            raise StandingError(f"cannot write {self._path}: {error.strerror or error}") from error


def lease_clock_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
