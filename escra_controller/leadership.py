"""Who leads: the lock on the state directory, the store behind it, and the number of the leadership.

One controller leads with one state directory: whoever holds its lock.  On another machine a standby waits
for a person to promote it.  Each promotion has a higher epoch than any that agents were heard to obey, and
agents do not go back to a lower one.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import structlog

from escra_common.errors import ConfigError
from escra_common.lock import Lock, LockError
from escra_common.messages import MAX_EPOCH, Hello
from escra_controller.bounds import ALL_APPS, EVERYTHING
from escra_controller.registry import BoundRows
from escra_controller.state import Refused
from escra_controller.storage.database import StoreError
from escra_controller.storage.values import Recovered
from escra_controller.storage.writer import Level
from escra_controller.store import Store

LOCK_EVERY_S = 0.2
# Agents try again at least every five seconds: who has not come by then was not there.
LOST_GRACE_S = 15.0

Role = Literal["waiting", "standby", "leader"]

log = structlog.get_logger()


class Leadership:
    """``waiting`` for the lock, ``standby`` until promoted, then ``leader``.  Never back but by a restart."""

    def __init__(self, directory: Path, host: str, *, standby: bool) -> None:
        self._directory = directory
        self._host = host
        self._standby = standby
        self._lock = Lock(directory / "lock")
        self._store: Store | None = None
        self._recovered: Recovered | None = None
        self._promoted = asyncio.Event()
        self._highest = 0
        # Hosts a standby has heard of, and whom agents said to follow instead.
        self.met_hosts: set[str] = set()
        self.others: dict[str, str] = {}
        self.role: Role = "waiting"
        self.epoch = 0

    # ---- becoming the leader -------------------------------------------------------

    def begin(self) -> bool:
        """Take the lock and open the store, if nobody else has it.  Raises ConfigError."""
        try:
            if not self._lock.try_acquire():
                return False
            loop = asyncio.get_running_loop()
            self._store, found = Store.open(self._directory, _tell, loop=loop)
        except (LockError, StoreError) as error:
            raise ConfigError(f"the state directory cannot be used: {error}") from error
        self._recovered = found
        self.epoch = self._highest = found.generation
        self.met_hosts = {host for (host, app) in found.bounds if app == ALL_APPS}
        if found.lost:
            log.error("state lost", kind="state_lost", reason=found.lost)
        self.role = "standby" if self._standby and not found.promoted else "leader"
        return True

    async def lead(self) -> None:
        """Wait for as long as it takes."""
        said = False
        while self.role == "waiting" and not self.begin():
            if not said:
                said = True
                log.info("standby", kind="standby", reason=f"{self.leader_beside} leads with this state")
            await asyncio.sleep(LOCK_EVERY_S)
        if self.role == "standby":
            log.info("standby", kind="standby", reason="until it is promoted: escra-controller promote")
            await self._promoted.wait()

    def promote(self, hosts: Iterable[str]) -> None:
        """A person says that this one leads from now on.

        ``hosts`` may hold limits beside those that were met: nothing grows beyond what those that have come
        brought, until all of them have come or are forgotten.  Raises Refused.
        """
        if self.role == "leader":
            raise Refused(f"this controller leads already, with epoch {self.epoch}")
        if self.role == "waiting" or self._store is None:
            raise Refused(
                f"{self.leader_beside} leads with the same state directory; "
                "stop it, and this one leads by itself"
            )
        for host in hosts:
            self._remember(host)
        self.epoch = min(MAX_EPOCH, self._highest + 1)
        # Not before it is on disk: agents that have heard of this epoch obey no lower one, and a crash
        # would leave a standby that knows nothing of it.
        self._store.lead(self.epoch, True, self._rise)
        log.warning("promoted", kind="promoted", reason=f"epoch {self.epoch}; hosts: {self._names()}")

    def _rise(self) -> None:
        self.role = "leader"
        self._promoted.set()

    def met(self, agent: Hello) -> None:
        """An agent said HELLO: it knows whom it follows."""
        if agent.epoch > self._highest:
            self._highest = agent.epoch
            if self.lost and agent.leader == self._host and self._store is not None:
                # Its own leadership, from before it lost its memory, and with it perhaps that a person had
                # promoted it; the agent comes again in a moment.
                self.epoch = agent.epoch
                self._store.lead(self.epoch, True, self._rise)
        if self.role == "standby":
            self._remember(agent.host)
        elif self.role == "leader":
            follows_another = agent.epoch > self.epoch or (
                agent.epoch == self.epoch and agent.leader not in ("", self._host)
            )
            if follows_another:
                self.others[agent.host] = f"{agent.leader or 'another controller'} (epoch {agent.epoch})"
            else:
                self.others.pop(agent.host, None)

    # ---- what the store knows ------------------------------------------------------

    @property
    def store(self) -> Store:
        assert self._store is not None, "only a leader writes"
        return self._store

    @property
    def recovered(self) -> Recovered:
        assert self._recovered is not None
        return self._recovered

    @property
    def lost(self) -> str:
        return self._recovered.lost if self._recovered else ""

    @property
    def remembers(self) -> bool:
        """Whether every host that can hold limits of ours is known from the start."""
        found = self.recovered
        return found.starts > 1 and not found.lost and self.epoch == found.generation

    @property
    def bounds(self) -> BoundRows:
        """As they were at the start, with what was learned as a standby."""
        return {**self.recovered.bounds, **{(host, ALL_APPS): EVERYTHING for host in self.met_hosts}}

    def problems(self) -> list[str]:
        found = [f"agent {host} follows {other}" for host, other in sorted(self.others.items())]
        if self._store is not None and self._store.trouble:
            found.append(f"store: {self._store.trouble}")
        return found

    @property
    def leader_beside(self) -> str:
        """The process that holds the lock."""
        pid = self._lock.holder()
        return f"process {pid}" if pid else "another process"

    def close(self) -> None:
        if self._store is not None:
            self._store.close(clean=True)
        self._lock.release()

    def _remember(self, host: str) -> None:
        if host not in self.met_hosts:
            self.met_hosts.add(host)
            self.store.secure({(host, ALL_APPS): EVERYTHING}, lambda: None)

    def _names(self) -> str:
        return ", ".join(sorted(self.met_hosts)) or "none"


def _tell(level: Level, sentence: str) -> None:
    emit = {"info": log.info, "warning": log.warning, "error": log.error}[level]
    emit("store", kind="store", reason=sentence)
