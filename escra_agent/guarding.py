"""The agent's end of the guard: started with the first armed cgroup, told of each, kept alive."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from escra_agent.errors import CgroupGone
from escra_agent.memorygroup import MemoryGroup
from escra_common.errors import EscraError

GUARD = Path(__file__).with_name("guard.py")
# A guard that died is not started again at once: what ended it may do so again.
PAUSE_S = 5.0
# Three of these in a row may be late before the guard acts (GUARD_S there).
ALIVE_EVERY_S = 0.25
END_S = 2.0


class Guarding:
    """Which v1 cgroups are armed.  Never is one armed that the guard has not been told of.

    ``trouble`` is what people should know about the guard, until it works again.
    """

    def __init__(self) -> None:
        self._guard: subprocess.Popen[bytes] | None = None
        self._armed: dict[str, MemoryGroup] = {}
        self._not_before = float("-inf")
        self._told = float("-inf")
        self.trouble = ""

    @property
    def pid(self) -> int | None:
        return None if self._guard is None else self._guard.pid

    def arm(self, group: MemoryGroup, now: float) -> bool:
        """Whether it is armed now; not while there is no guard.  Does nothing on v2."""
        if group.banded or not self._running(now) or not self._tell(f"arm {group.switch}", now):
            return False
        self._armed[group.switch] = group
        group.arm()
        return True

    def disarm(self, group: MemoryGroup, now: float) -> None:
        """The kernel's own OOM killer works again, and frees those who wait."""
        if group.switch in self._armed:
            with contextlib.suppress(CgroupGone):
                group.disarm()
            del self._armed[group.switch]
            self._tell(f"disarm {group.switch}", now)

    def wake(self, group: MemoryGroup) -> None:
        """Let its tasks try again; one that is not armed (any more) needs no waking, and stays so."""
        if group.switch in self._armed:
            group.wake()

    def forget(self, keep: set[str], now: float) -> None:
        """Those not in ``keep`` are closed: they ended, or were given back."""
        for switch in self._armed.keys() - keep:
            del self._armed[switch]
            self._tell(f"disarm {switch}", now)

    def disarm_all(self, now: float) -> None:
        for group in list(self._armed.values()):
            with contextlib.suppress(EscraError):  # The guard, who knows it, tries again.
                self.disarm(group, now)

    def alive(self, now: float) -> None:
        """Each tick: the agent lives, and so does the guard, or everything is disarmed."""
        if self._guard is not None and now - self._told >= ALIVE_EVERY_S:
            self._tell("", now)

    def close(self, now: float) -> None:
        """Disarm everything and end the guard."""
        self.disarm_all(now)
        if self._guard is not None:
            _end(self._guard)
            self._guard = None

    def _running(self, now: float) -> bool:
        if self._guard is None and now >= self._not_before:
            try:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(GUARD)], stdin=subprocess.PIPE, cwd="/"
                )
            except OSError as error:
                self._lost(f"it cannot be started: {error.strerror}", now)
                return False
            assert self._guard.stdin is not None
            os.set_blocking(self._guard.stdin.fileno(), False)
            self.trouble = ""
        return self._guard is not None

    def _tell(self, line: str, now: float) -> bool:
        guard = self._guard
        if guard is None or guard.stdin is None:
            return False
        if (status := guard.poll()) is not None:
            self._lost(f"it ended with status {status}", now)
            return False
        try:
            os.write(guard.stdin.fileno(), os.fsencode(line) + b"\n")
        except OSError as error:
            self._lost(f"it does not listen: {error.strerror}", now)
            return False
        self._told = now
        return True

    def _lost(self, reason: str, now: float) -> None:
        self._not_before = now + PAUSE_S
        self.trouble = f"{reason}; tasks are killed at their limit until the next one runs"
        guard, self._guard = self._guard, None
        self.disarm_all(now)
        if guard is not None:
            guard.kill()
            _end(guard)


def _end(guard: "subprocess.Popen[bytes]") -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(END_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
