"""The containers of this host that Escra looks after, from appearing to being given back."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from escra_agent.caps import UNCAPPED, HostCaps
from escra_agent.cgroupfs import Cgroup, describe
from escra_agent.errors import CgroupGone
from escra_agent.gate import Gate
from escra_agent.hierarchy import Hierarchy
from escra_agent.inspection import inspect
from escra_agent.memorycut import Cutter
from escra_agent.memorygroup import describe_memory
from escra_agent.originals import Original, OriginalsStore, Outcome, StoreError, restore_all
from escra_agent.planner import Plan
from escra_agent.tracked import Candidate, Tracked
from escra_common.errors import EscraError
from escra_common.messages import Appeared, CpuLimit, Gone, MemoryLimit, Message

log = structlog.get_logger()


class Roster:
    """``announce`` takes the messages about containers that come, change and go."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        store: OriginalsStore,
        announce: Callable[[Message], None],
        cutter: Cutter,
        *,
        manage_memory: bool = True,
        caps: HostCaps = UNCAPPED,
        observing: bool = False,
    ) -> None:
        self._hierarchy = hierarchy
        self._store = store
        self._announce = announce
        self._cutter = cutter
        self._manage_memory = manage_memory
        # This host only looks on.
        self._observing = observing
        # The store is written in a thread, by one at a time.
        self._disk = asyncio.Lock()
        # Why the present original of these is not on disk.
        self._unrecorded: dict[int, str] = {}
        self.tracked: dict[int, Tracked] = {}
        # How many were let go of so far, and who wants to know.
        self.departed = 0
        self.on_departure: Callable[[], None] = lambda: None
        self.gate = Gate(self.tracked, announce, caps)
        # What a cgroup that nothing is recorded of had before Escra, where its present limit is ours.
        self.original_behind: Callable[[Cgroup, str], Original | None] = lambda cgroup, boot_id: None

    def find(self, container_id: str) -> Tracked | None:
        return next((t for t in self.tracked.values() if t.candidate.id == container_id), None)

    def awake(self) -> list[Tracked]:
        """Those that a tick visits."""
        return [tracked for tracked in self.tracked.values() if not tracked.resting]

    @property
    def unclaimed(self) -> bool:
        """Whether something was limited, by an earlier agent, that nobody has spoken of yet."""
        return any(original.key not in self.tracked for original in self._store.all())

    async def attach(self, candidates: Iterable[Candidate]) -> None:
        """Take containers in; one that cannot be opened is logged and left alone.

        The originals are on disk before anybody is told, so before any limit can change.
        """
        opened = [t for candidate in candidates if (t := self._open(candidate)) is not None]
        manageable = [t for t in opened if t.candidate.labels.mode != "off" and not t.candidate.problem]
        if error := await self._record(manageable):
            for tracked in manageable:
                self._set_problem(tracked, error)
        for tracked in opened:
            tracked.caps, tracked.observed = self.gate.caps, self._observing
            self.tracked[tracked.key] = tracked
            if tracked.candidate.labels.mode == "off":
                if await self._give_back(tracked):
                    await self._forget(tracked.key)
            elif self._left_behind(tracked):
                await self._give_back(tracked)
            elif tracked.memory and tracked.memory.problem:
                await self._give_memory_back(tracked)
            log.info(
                "container appeared",
                kind="container_appeared",
                app=tracked.candidate.labels.app,
                container=tracked.candidate.name,
                reason=tracked.candidate.problem or f"original limit {describe(tracked.original)}",
            )
            self._announce(Appeared(tracked.describe()))

    async def observe(self, observing: bool) -> None:
        """From now on look on only, which gives the original limits back; or take part again."""
        if observing == self._observing:
            return
        self._observing = observing
        for tracked in list(self.tracked.values()):
            tracked.observed = observing
            if self._left_behind(tracked):
                await self._give_back(tracked)
            if tracked.key in self.tracked:  # it may have ended meanwhile
                self._announce(Appeared(tracked.describe()))

    def _left_behind(self, tracked: Tracked) -> bool:
        """Whether it has a limit of ours, although this host only looks on."""
        memory = tracked.memory and tracked.memory.plan.wanted
        return tracked.mode == "observe" and (tracked.plan.wanted is not None or memory is not None)

    async def detach(self, tracked: Tracked, *, give_back: bool = False) -> None:
        """Let go of a container: it ended, or, with ``give_back``, it is not ours to manage any more."""
        if self.tracked.pop(tracked.key, None) is None:
            return
        self.departed += 1
        self.on_departure()
        tracked.resting = False
        done = not give_back or await self._give_back(tracked)
        self._announce(Gone(tracked.key))
        log.info(
            "container gone",
            kind="container_gone",
            app=tracked.candidate.labels.app,
            container=tracked.candidate.name,
            reason="given back" if give_back else "ended",
        )
        tracked.cgroup.close()
        if done:
            await self._forget(tracked.key)

    async def change(
        self,
        tracked: Tracked,
        candidate: Candidate,
        cpu: CpuLimit | None = None,
        memory: MemoryLimit | None = None,
    ) -> None:
        """Its name or its wishes changed, or somebody gave it other limits of its own (docker update)."""
        if candidate.labels != tracked.candidate.labels and (dropped := tracked.drop_orders()):
            self._announce(dropped)
        tracked.candidate, tracked.resting = candidate, False
        if cpu is not None:
            tracked.original = cpu
        if memory is not None and tracked.memory is not None:
            tracked.memory.original = memory
            tracked.memory.plan.shape = replace(tracked.memory.plan.shape, original=memory)
        if cpu is not None or memory is not None or tracked.key in self._unrecorded:
            if (error := await self._record([tracked])) and self._store.get(tracked.key) is None:
                self._set_problem(tracked, error)
            elif error:
                log.warning("new original limit not recorded yet", reason=error)
        self._announce(Appeared(tracked.describe()))

    async def record_again(self) -> None:
        """What could not be recorded (a full disk) may be by now; who waited for that can then be managed."""
        waiting = dict(self._unrecorded)
        known = [tracked for key in waiting if (tracked := self.tracked.get(key)) is not None]
        self._unrecorded = {tracked.key: waiting[tracked.key] for tracked in known}
        if not known or await self._record(known):
            return
        for tracked in known:
            if tracked.candidate.problem == waiting[tracked.key]:
                self._set_problem(tracked, "")
                self._announce(Appeared(tracked.describe()))

    async def release(self, tracked: Tracked) -> str:
        """Give the original limits back but keep watching; why the memory limit is another, or ""."""
        self._give_cpu_back(tracked)
        return await self._give_memory_back(tracked)

    async def restore_unclaimed(self) -> None:
        """Originals of containers that nobody wants managed any more, left over from an earlier agent."""
        async with self._disk:
            try:
                outcomes = await asyncio.to_thread(
                    restore_all, self._store, self._hierarchy, set(self.tracked)
                )
            except StoreError as error:  # all were tried; only the record keeps them
                log.warning("the record of original limits keeps entries too many", reason=str(error))
            else:
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
            if cgroup.key in self.tracked:
                cgroup.close()
                return None
            known = self._store.get(cgroup.key) or self.original_behind(cgroup, self._store.boot_id)
            return inspect(candidate, cgroup, known, manage_memory=self._manage_memory)
        except EscraError as error:
            cgroup.close()
            if not isinstance(error, CgroupGone):
                log.warning("container left alone", container=candidate.name, reason=str(error))
            return None

    async def _give_back(self, tracked: Tracked) -> bool:
        """Whether that worked; a refusal is logged and its record kept for `escra-agent restore`."""
        cpu_done = self._give_cpu_back(tracked)
        return not await self._give_memory_back(tracked) and cpu_done

    def _give_cpu_back(self, tracked: Tracked) -> bool:
        tracked.plan, tracked.resting = Plan(None), False
        known = self._store.get(tracked.key)
        if known is None:
            return True
        try:
            limit = tracked.cgroup.write_limit(known.limit)
            tracked.last = tracked.cgroup.read(fresh=True)
        except EscraError as error:
            log.warning("limit not given back", kind="write_failed", reason=str(error))
            return isinstance(error, CgroupGone)
        self._log_given_back(tracked, describe(limit))
        return True

    async def _give_memory_back(self, tracked: Tracked) -> str:
        """Why the original memory limit is not in force; "" when it is."""
        memory, known = tracked.memory, self._store.get(tracked.key)
        if memory is None:
            return ""
        memory.plan.let_go()
        if known is None or known.memory is None:
            return ""
        try:
            in_force, reason = await self._cutter.give_back(memory.group, known.memory)
        except EscraError as error:
            reason = "" if isinstance(error, CgroupGone) else str(error)
        else:
            memory.last = replace(memory.last, limit=in_force, armed=False, stalled=False)
            if not reason:
                self._log_given_back(tracked, f"memory {describe_memory(in_force)}")
        if reason:
            log.warning("memory limit not given back", kind="write_failed", reason=reason)
        return reason

    def _log_given_back(self, tracked: Tracked, what: str) -> None:
        log.info(
            "original limit given back",
            kind="container_released",
            app=tracked.candidate.labels.app,
            container=tracked.candidate.name,
            reason=what,
        )

    async def _record(self, containers: Sequence[Tracked]) -> str:
        """Put their originals on disk; why that failed, or ""."""
        async with self._disk:
            try:
                await asyncio.to_thread(self._store.remember, *(self._original(t) for t in containers))
            except StoreError as error:
                self._unrecorded |= {tracked.key: str(error) for tracked in containers}
                return str(error)
        for tracked in containers:
            self._unrecorded.pop(tracked.key, None)
        return ""

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
            self._original_memory(tracked),
        )

    def _original_memory(self, tracked: Tracked) -> MemoryLimit | None:
        """None is: memory was never touched.  What an earlier agent recorded stays until it is given back."""
        if tracked.memory is None:
            return None
        if not tracked.memory.problem:
            return tracked.memory.original
        known = self._store.get(tracked.key)
        return known.memory if known else None

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
