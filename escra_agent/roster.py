"""The containers of this host that Escra looks after, from appearing to being given back."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from escra_agent.cgroupfs import Cgroup, Counters, MemoryReading, describe
from escra_agent.errors import CgroupGone
from escra_agent.hierarchy import Hierarchy
from escra_agent.labels import Labels
from escra_agent.originals import Original, OriginalsStore, Outcome, restore_all
from escra_agent.planner import Plan
from escra_agent.sampler import Sampler
from escra_common.errors import EscraError
from escra_common.messages import Appeared, Container, CpuLimit, Gone, Message

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody says that a container should take part.  ``problem`` is why it cannot."""

    id: str
    name: str
    open: Callable[[], Cgroup]
    labels: Labels
    problem: str = ""


@dataclass(slots=True)
class Tracked:
    candidate: Candidate
    cgroup: Cgroup
    original: CpuLimit
    last: Counters
    plan: Plan
    cap_milli: int | None
    pinned: bool
    sampler: Sampler = field(default_factory=Sampler)
    idle: bool = False
    drift_logged: bool = False
    memory: MemoryReading | None = None

    @property
    def key(self) -> int:
        return self.cgroup.key

    def describe(self) -> Container:
        """As the controller should know it.

        A limit that somebody else changed under us is repaired within a tick, so what we stand for is said.
        """
        labels = self.candidate.labels
        return Container(
            key=self.key,
            id=self.candidate.id,
            name=self.candidate.name,
            app=labels.app,
            cgroup=self.cgroup.path,
            mode=labels.mode,
            original=self.original,
            in_force=self.plan.wanted or self.last.limit,
            managed=self.plan.wanted is not None,
            weight=labels.weight,
            cpu_min_milli=labels.cpu_min_milli,
            cpu_max_milli=labels.cpu_max_milli,
            memory_min_bytes=labels.memory_min_bytes,
            memory_max_bytes=labels.memory_max_bytes,
            cap_milli=self.cap_milli,
            pinned=self.pinned,
            problem=self.candidate.problem[:1000],
        )


class Roster:
    """``announce`` takes the messages about containers that come, change and go."""

    def __init__(
        self, hierarchy: Hierarchy, store: OriginalsStore, announce: Callable[[Message], None]
    ) -> None:
        self._hierarchy = hierarchy
        self._store = store
        self._announce = announce
        # The store is written in a thread, by one at a time.
        self._disk = asyncio.Lock()
        self.tracked: dict[int, Tracked] = {}

    def find(self, container_id: str) -> Tracked | None:
        return next((t for t in self.tracked.values() if t.candidate.id == container_id), None)

    async def attach(self, candidates: Iterable[Candidate]) -> None:
        """Take containers in; one that cannot be opened is logged and left alone.

        The originals are on disk before anybody is told, so before any limit can change.
        """
        opened = [t for candidate in candidates if (t := self._open(candidate)) is not None]
        manageable = [t for t in opened if t.candidate.labels.mode != "off" and not t.candidate.problem]
        async with self._disk:
            try:
                await asyncio.to_thread(self._store.remember, *(self._original(t) for t in manageable))
            except EscraError as error:
                for tracked in manageable:
                    self._set_problem(tracked, str(error))
        for tracked in opened:
            self.tracked[tracked.key] = tracked
            if tracked.candidate.labels.mode == "off":
                await self._give_back(tracked)
                await self._forget(tracked.key)
            log.info(
                "container appeared",
                kind="container_appeared",
                app=tracked.candidate.labels.app,
                container=tracked.candidate.name,
                reason=tracked.candidate.problem or f"original limit {describe(tracked.original)}",
            )
            self._announce(Appeared(tracked.describe()))

    async def detach(self, tracked: Tracked, *, give_back: bool = False) -> None:
        """Let go of a container: it ended, or, with ``give_back``, it is not ours to manage any more."""
        if self.tracked.pop(tracked.key, None) is None:
            return
        if give_back:
            await self._give_back(tracked)
        self._announce(Gone(tracked.key))
        log.info(
            "container gone",
            kind="container_gone",
            app=tracked.candidate.labels.app,
            container=tracked.candidate.name,
            reason="given back" if give_back else "ended",
        )
        tracked.cgroup.close()
        await self._forget(tracked.key)

    async def change(self, tracked: Tracked, candidate: Candidate, original: CpuLimit | None) -> None:
        """Its name or its wishes changed, or somebody gave it another limit of its own (docker update)."""
        tracked.candidate = candidate
        if original is not None:
            tracked.original = original
            async with self._disk:
                await asyncio.to_thread(self._store.remember, self._original(tracked))
        self._announce(Appeared(tracked.describe()))

    async def release(self, tracked: Tracked) -> CpuLimit:
        """Give the original limit back but keep watching; what is in force then."""
        await self._give_back(tracked)
        return tracked.last.limit

    async def restore_unclaimed(self) -> None:
        """Originals of containers that nobody wants managed any more, left over from an earlier agent."""
        async with self._disk:
            outcomes = await asyncio.to_thread(restore_all, self._store, self._hierarchy, set(self.tracked))
        log_outcomes(outcomes)

    async def restore_everything(self) -> list[Outcome]:
        """Put every original back, for a stop that asks for it."""
        async with self._disk:
            outcomes = await asyncio.to_thread(restore_all, self._store, self._hierarchy)
        log_outcomes(outcomes)
        return outcomes

    def close(self) -> None:
        for tracked in self.tracked.values():
            tracked.cgroup.close()

    def _open(self, candidate: Candidate) -> Tracked | None:
        try:
            cgroup = candidate.open()
        except CgroupGone:
            return None
        except EscraError as error:
            log.warning("container left alone", container=candidate.name, reason=str(error))
            return None
        try:
            return self._inspect(candidate, cgroup)
        except EscraError as error:
            cgroup.close()
            if not isinstance(error, CgroupGone):
                log.warning("container left alone", container=candidate.name, reason=str(error))
            return None

    def _inspect(self, candidate: Candidate, cgroup: Cgroup) -> Tracked | None:
        if cgroup.key in self.tracked:
            cgroup.close()
            return None
        counters = cgroup.read(fresh=True)
        known = self._store.get(cgroup.key)
        original = known.limit if known else counters.limit
        # An earlier agent recorded the original; if the kernel holds another limit, we wrote it.
        held = counters.limit if known and counters.limit != original else None
        cap, pinned = cgroup.cap_milli(), cgroup.pinned()
        return Tracked(candidate, cgroup, original, counters, Plan(held), cap, pinned)

    async def _give_back(self, tracked: Tracked) -> None:
        """Write the original limit; a refusal is logged and its record kept for `escra-agent restore`."""
        tracked.plan = Plan(None)
        known = self._store.get(tracked.key)
        if known is None:
            return
        try:
            limit = tracked.cgroup.write_limit(known.limit)
            tracked.last = tracked.cgroup.read(fresh=True)
        except EscraError as error:
            log.warning("limit not given back", kind="write_failed", reason=str(error))
            return
        log.info(
            "original limit given back",
            kind="container_released",
            app=tracked.candidate.labels.app,
            container=tracked.candidate.name,
            reason=describe(limit),
        )

    async def _forget(self, *keys: int) -> None:
        async with self._disk:
            try:
                await asyncio.to_thread(self._store.forget, *keys)
            except EscraError as error:
                log.warning("the record of original limits keeps an entry too many", reason=str(error))

    def _original(self, tracked: Tracked) -> Original:
        return Original(
            tracked.key,
            tracked.candidate.id,
            tracked.candidate.name,
            tracked.cgroup.path,
            self._store.boot_id,
            tracked.original,
            tracked.cgroup.paths,
        )

    def _set_problem(self, tracked: Tracked, problem: str) -> None:
        c = tracked.candidate
        tracked.candidate = Candidate(c.id, c.name, c.open, c.labels, problem)


def log_outcomes(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        emit = log.warning if outcome.result == "failed" else log.info
        emit(
            "original limit restored" if outcome.result == "restored" else "original limit not restored",
            kind="originals_restored",
            container=outcome.original.name,
            reason=f"{outcome.result}: {outcome.text}",
        )
