"""What is done with the containers when no controller has been there for as long as their lease."""

import asyncio

import structlog

from escra_agent.errors import CgroupGone
from escra_agent.keeper import Keeper
from escra_agent.memorykeeper import MemoryKeeper
from escra_agent.roster import Roster
from escra_agent.standing import Standing
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError
from escra_common.messages import AppTerms

log = structlog.get_logger()


class Fallback:
    """The controller that is away counts on it once the lease is over."""

    def __init__(self, standing: Standing, roster: Roster, keeper: Keeper, memory: MemoryKeeper) -> None:
        self._standing = standing
        self._roster = roster
        self._keeper = keeper
        self._memory = memory
        self._done: set[str] = set()
        self._releases: set[asyncio.Task[str]] = set()

    def tick(self, now_s: float, *, linked: bool) -> None:
        """``now_s`` is the lease's clock."""
        if linked:
            self._done.clear()
            return
        for terms in self._standing.lapsed(now_s):
            if terms.app not in self._done:
                self._done.add(terms.app)
                self._lapse(terms)

    def _lapse(self, terms: AppTerms) -> None:
        theirs = [t for t in self._roster.tracked.values() if t.candidate.labels.app == terms.app]
        log.warning(
            "the lease is over",
            kind="lease_over",
            app=terms.app,
            reason=f"no controller for {terms.lease_s} s: {len(theirs)} containers, {terms.fallback}",
        )
        for tracked in theirs:
            try:
                self._fall_back(tracked, terms)
            except CgroupGone:
                continue  # the tick finds that out, too
            except (EscraError, OSError) as error:
                log.warning("limit not changed", container=tracked.candidate.name, reason=str(error))

    def _fall_back(self, tracked: Tracked, terms: AppTerms) -> None:
        if terms.fallback == "restore":
            task = asyncio.create_task(self._roster.release(tracked))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)
            return
        labels = tracked.candidate.labels
        cpu = terms.cpu_min_milli if labels.cpu_min_milli is None else labels.cpu_min_milli
        memory = terms.memory_min_bytes if labels.memory_min_bytes is None else labels.memory_min_bytes
        self._keeper.lower(tracked, cpu)
        self._memory.lower(tracked, memory)
