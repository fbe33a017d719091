"""The memory of all containers: each tick, at each notice from the kernel, in between while it climbs, and
the orders that come back."""

import asyncio
import contextlib
import select
import time
from collections.abc import Callable, Iterator

import structlog

from escra_agent.errors import CgroupGone
from escra_agent.guarding import Guarding
from escra_agent.keeper import TROUBLE_EVERY_S
from escra_agent.memorycut import Cutter, above
from escra_agent.memorygroup import describe_memory
from escra_agent.memorylevels import MemoryReporter
from escra_agent.memorylookout import MemoryLookout
from escra_agent.memorymarks import Marks
from escra_agent.memorywriter import MemoryWriter
from escra_agent.roster import Roster
from escra_agent.tracked import Tracked, TrackedMemory
from escra_common.errors import EscraError
from escra_common.messages import DenyMemory, Message, SetMemory
from escra_common.seldom import Seldom

log = structlog.get_logger()

# A limit that somebody else raised comes back down at most so near to what is in use by then.
MARGIN_BYTES = 8 << 20
# What one container may be in, without holding up the others.
TROUBLES = (EscraError, OSError, ValueError, LookupError)


class MemoryKeeper:
    """``send`` takes messages for the controller.  Everything here is short and does not wait.

    Containers that turn out to be gone are collected in ``gone``; the others are not held up.
    """

    def __init__(self, roster: Roster, cutter: Cutter, send: Callable[[Message], None]) -> None:
        self._roster = roster
        self._send = send
        self._writer = MemoryWriter(cutter, send, self._settled, roster.gate)
        self._reporter = MemoryReporter(send)
        self._guarding = Guarding()
        # uvloop waits for readable descriptors only; an epoll that has something to tell is one.
        self._epoll = select.epoll()
        self._keys: dict[int, int] = {}
        self._marks = Marks(self._epoll, self._keys)
        self._lookout = MemoryLookout(self._glance)
        self._linked = False
        self._asked = 0
        self._departed = 0
        self._before = time.monotonic()
        self._trouble = ""
        self._seldom = Seldom(TROUBLE_EVERY_S)
        self.gone: list[Tracked] = []
        self.drift_repairs = 0

    @property
    def writes(self) -> int:
        return self._writer.writes

    @property
    def guard_pid(self) -> int | None:
        return self._guarding.pid

    def start(self) -> None:
        """From now on notices of the kernel are heard, in the running loop."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._woken)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self.link(False)
        self._lookout.close()
        self._marks.close()
        self._guarding.close(time.monotonic())
        self._epoll.close()

    def link(self, up: bool) -> None:
        """Nobody is kept waiting for a controller that is away."""
        self._linked = up
        if up:
            return
        now = time.monotonic()
        self._guarding.disarm_all(now)
        for tracked, memory in self._all():
            with self._sheltered(tracked):
                self._attend(tracked, memory, now)

    # ---- each tick -----------------------------------------------------------------

    def tick(self) -> bool:
        """Whether it asked for memory: somebody may be waiting."""
        now, asked_before = time.monotonic(), self._asked
        self._guarding.alive(now)
        for tracked in self._roster.awake():
            if (memory := tracked.memory) is not None:
                try:
                    self._visit(tracked, memory, now)
                except TROUBLES as error:
                    self._trouble_with(tracked, error)
        self._before = now
        if self._roster.departed != self._departed:
            self._departed = self._roster.departed
            self._guarding.forget({memory.group.switch for _, memory in self._all()}, now)
            self._marks.keep(self._roster.tracked.keys())
        self._reporter.tick()
        if self._guarding.trouble != self._trouble:
            self._trouble = self._guarding.trouble
            log.warning("memory guard", reason=self._trouble or "it runs again")
        return self._asked != asked_before

    def _visit(self, tracked: Tracked, memory: TrackedMemory, now: float) -> None:
        if memory.settled:
            if tracked.watched and not memory.suspect and memory.group.still():
                return
            memory.plan.saw(memory.plan.used_bytes, self._before)
        before, memory.settled = memory.pulse.used_bytes, False
        if not memory.watched:
            self._watch(tracked, memory)
        memory.pulse = memory.group.pulse(fresh=memory.suspect or not tracked.watched)
        memory.plan.saw(memory.pulse.used_bytes, now)
        stands = memory.pulse.used_bytes == before
        memory.told_all = memory.told_all and stands
        if memory.pulse.oom_kills != memory.last.oom_kills:
            self._reporter.read(tracked, memory)
        if not memory.cuts:
            self._repair(tracked, memory)
        self._attend(tracked, memory, now)
        if memory.pulse.overlooked:
            self._guarding.wake(memory.group)
        self._reporter.visit(tracked, memory, now)
        memory.settled = stands and self._is_settled(tracked, memory, now)

    def _is_settled(self, tracked: Tracked, memory: TrackedMemory, now: float) -> bool:
        plan, (_, stalled, armed, _, overlooked) = memory.plan, memory.pulse
        ours = plan.wanted is not None and tracked.ours
        arms = not ours or memory.group.banded or armed == (self._linked and plan.wants_arms)
        waits = memory.cuts or memory.suspect or stalled or overlooked
        return arms and not waits and memory.told_all and plan.quiet(now)

    def _repair(self, tracked: Tracked, memory: TrackedMemory) -> None:
        if tracked.watched and not memory.suspect:
            return
        if memory.plan.wanted is None or not tracked.ours:
            memory.suspect = False
            return
        found = memory.group.read_limit()
        limit = memory.plan.repair(found)
        if limit is None or limit.max_bytes is None:
            memory.suspect = False
            return
        self.drift_repairs += 1
        if not memory.drift_logged:
            memory.drift_logged = True
            log.warning(
                "foreign limit repaired",
                kind="drift_repaired",
                app=tracked.candidate.labels.app,
                container=tracked.candidate.name,
                reason=f"somebody set memory to {describe_memory(found)}; now {describe_memory(limit)} again",
            )
        if above(found, limit):
            # What was taken meanwhile cannot be had back; then the acknowledgement says so.  Else it is the
            # limit that is counted, whatever that leaves: who needs more asks for it.
            taken = memory.group.needed_bytes() > limit.max_bytes
            margin = MARGIN_BYTES if taken else 0
            self._writer.cut(tracked, memory, limit.max_bytes, margin, ordered=False)
        else:
            self._writer.raise_limit(memory, limit)
        memory.suspect = False

    # ---- notices from the kernel ---------------------------------------------------

    def _watch(self, tracked: Tracked, memory: TrackedMemory) -> None:
        fd, event = memory.group.notification()
        # A descriptor leaves the epoll when it is closed, and then its number may come back.
        self._keys[fd] = tracked.key
        self._epoll.register(fd, event)
        memory.watched = True

    def _woken(self) -> None:
        now = time.monotonic()
        for fd, _ in self._epoll.poll(0):
            tracked = self._roster.tracked.get(self._keys.get(fd, 0))
            if tracked is None or tracked.memory is None or not self._hear(tracked, tracked.memory, now):
                # A removed cgroup gives notice without end.
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)

    def _hear(self, tracked: Tracked, memory: TrackedMemory, now: float) -> bool:
        """Whether more can come."""
        with self._sheltered(tracked):
            memory.group.heard()
            # Somebody may be waiting: what only counts comes after what helps.
            self._look(tracked, memory, now)
            if memory.pulse.overlooked:
                self._guarding.wake(memory.group)
            self._reporter.read(tracked, memory)
            return True
        return False

    def _look(self, tracked: Tracked, memory: TrackedMemory, now: float) -> None:
        memory.pulse = memory.group.pulse()
        memory.plan.saw(memory.pulse.used_bytes, now)
        self._attend(tracked, memory, now)

    def _glance(self, tracked: Tracked) -> None:
        """Between two ticks.  How fast it grows is told from tick to tick."""
        memory, now = tracked.memory, time.monotonic()
        if memory is None or self._roster.tracked.get(tracked.key) is not tracked:
            return
        with self._sheltered(tracked):
            before, memory.pulse = memory.pulse.used_bytes, memory.group.pulse(fresh=False)
            memory.plan.used_bytes = memory.pulse.used_bytes
            memory.told_all = memory.told_all and memory.pulse.used_bytes == before
            self._attend(tracked, memory, now)

    def _attend(self, tracked: Tracked, memory: TrackedMemory, now: float) -> None:
        """Ask for more where it is needed, and let the kernel have its way where asking is of no use."""
        plan, group, (_, stalled, armed, *_) = memory.plan, memory.group, memory.pulse
        tracked.resting = False
        if plan.wanted is None or not tracked.ours:
            self._guarding.disarm(group, now)
            return
        plan.recover(now, paused=stalled)
        if self._linked:
            if plan.wants_look(now) or (stalled and plan.asked is None):
                plan.looked(group.cache_bytes(), now)
            before = plan.denied
            need = plan.need(now, paused=stalled, seen_usec=int(now * 1e6))
            if need is not None and not self._writer.draw(tracked, memory, need):
                self._asked += 1
                self._send(need)
            if plan.denied is not None and plan.denied is not before:
                log.warning("no more memory", container=tracked.candidate.name, reason=plan.denied.reason)
        if not (self._linked and plan.wants_arms):
            self._guarding.disarm(group, now)
        elif not armed:
            self._guarding.arm(group, now)
        if not memory.cuts and (limit := plan.band(now, helped=self._linked)) is not None:
            self._writer.put_high(tracked, memory, limit)
        if self._linked:
            if plan.climbs(now):
                self._lookout.watch(tracked)
            if not group.banded and plan.wanted.max_bytes is not None:
                self._marks.see_to(tracked.key, group.directory, plan.used_bytes, plan.wanted.max_bytes)

    # ---- orders --------------------------------------------------------------------

    def obey(self, orders: SetMemory) -> None:
        self._roster.gate.count("memory")
        for order in orders.orders:
            tracked = self._roster.tracked.get(order.key)
            if tracked is not None and tracked.memory is not None:
                with self._sheltered(tracked):
                    self._writer.obey(tracked, tracked.memory, order)

    def deny(self, denial: DenyMemory) -> None:
        tracked, now = self._roster.tracked.get(denial.key), time.monotonic()
        if tracked is None or tracked.memory is None:
            return
        if tracked.memory.plan.deny(denial.serial, denial.reason, now):
            with self._sheltered(tracked):
                self._attend(tracked, tracked.memory, now)

    def lower(self, tracked: Tracked, max_bytes: int) -> None:
        """Nobody gives orders any more: down to this as far as it harms nobody."""
        memory = tracked.memory
        if memory is not None and memory.plan.wanted is not None and tracked.ours:
            with self._sheltered(tracked):
                if (memory.plan.wanted.max_bytes or 0) > max_bytes:
                    self._writer.cut(tracked, memory, max_bytes, MARGIN_BYTES, ordered=False)

    def _settled(self, tracked: Tracked, memory: TrackedMemory) -> None:
        """A container just managed for the first time shall not meet its limit unarmed."""
        with self._sheltered(tracked):
            self._look(tracked, memory, time.monotonic())

    def _all(self) -> list[tuple[Tracked, TrackedMemory]]:
        return [(t, t.memory) for t in self._roster.tracked.values() if t.memory is not None]

    @contextlib.contextmanager
    def _sheltered(self, tracked: Tracked) -> Iterator[None]:
        try:
            yield
        except TROUBLES as error:
            self._trouble_with(tracked, error)

    def _trouble_with(self, tracked: Tracked, error: Exception) -> None:
        if isinstance(error, CgroupGone):
            self.gone.append(tracked)
        elif self._seldom.allows(str(tracked.key), time.monotonic()):
            log.warning("memory not looked after", container=tracked.candidate.name, reason=str(error))
