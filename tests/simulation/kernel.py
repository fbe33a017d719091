"""A host's kernel: the cgroups of its containers, with the work in them.  They outlive the agent.

What is kept is what matters to Escra: a CPU quota that is used up within each period, refilled by every
write and at the next period's start, with the counters that follow (K3-K6); memory that is counted,
dropped, waited for (v1, K11) and killed for (v2, K12-K14).
Each limit is kept twice: as it is, and as Escra last wrote it, so that what a stranger wrote can be told
from what we did.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from escra_agent.errors import CgroupGone, LimitRejected
from escra_agent.memoryshape import LEAST_BAND_BYTES
from escra_common.messages import CpuLimit, MemoryLimit
from escra_common.units import MIN_QUOTA_USEC
from tests.simulation.clockwork import Clockwork

MIB = 1 << 20
PAGE = 4096
PERIOD_USEC = 100_000
# Memory is used up in steps of this much time.
GROWTH_STEP_S = 0.01
# K13: whoever is above memory.high gets on at this share of its speed.
ABOVE_HIGH = 0.1
NO_CPU_LIMIT = CpuLimit(None, PERIOD_USEC)
NO_MEMORY_LIMIT = MemoryLimit(None)


@dataclass(slots=True)
class Notices:
    """What a kernel tells the world at once; each is called after it happened."""

    limited: Callable[["Group"], None]
    killed: Callable[["Group"], None]
    fault: Callable[[str], None]


@dataclass(slots=True, eq=False)
class Group:
    """One container's cgroups, CPU and memory; ``key`` is the inode.

    CPU demand in millicores, memory in bytes: ``anon`` is needed, ``cache`` can be dropped; ``want`` is
    where the program is going, at ``rate`` bytes per second.  ``cpu_ours`` and ``memory_ours`` are the
    limits Escra put in force, None while it does not manage them.
    """

    clockwork: Clockwork
    notices: Notices
    host: str
    key: int
    id: str
    name: str
    labels: Mapping[str, str]
    banded: bool
    cpu: CpuLimit = NO_CPU_LIMIT
    memory: MemoryLimit = NO_MEMORY_LIMIT
    demand: int = 0
    anon: int = 8 * MIB
    cache: int = 0
    rate: int = 0
    want: int = 8 * MIB
    there: bool = True
    refuses: bool = False

    cpu_original: CpuLimit = field(init=False)
    memory_original: MemoryLimit = field(init=False)
    # Those it had before somebody changed them: an agent that died meanwhile may know no better.
    cpu_former: list[CpuLimit] = field(default_factory=list)
    memory_former: list[MemoryLimit] = field(default_factory=list)
    cpu_ours: CpuLimit | None = None
    memory_ours: MemoryLimit | None = None
    armed: bool = False
    stalled: bool = False
    kills: int = 0
    high_events: int = 0
    max_events: int = 0
    cpu_writes: int = 0
    cpu_written_at: float = float("-inf")
    memory_writes: int = 0
    listener: Callable[[], None] | None = None
    # By the number of its descriptor: at how many bytes in use, and who listens.
    marks: dict[int, tuple[int, Callable[[], None] | None]] = field(default_factory=dict)
    # Each holds the numbers of the groups that were written to, until it is read.
    watchers: list[set[int]] = field(default_factory=list)
    usage_usec: float = 0.0
    nr_periods: int = 0
    nr_throttled: int = 0
    throttled_usec: float = 0.0
    _counted_to: float = field(init=False)
    _left_usec: float = 0.0
    _throttled: bool = False
    _growing: bool = False

    def __post_init__(self) -> None:
        self.cpu_original, self.memory_original = self.cpu, self.memory
        self._counted_to = self.clockwork.now
        self._refill()

    # ---- what is in force, for those who check -------------------------------------

    @property
    def app(self) -> str:
        return self.labels.get("escra.app", "")

    def cpu_charge(self) -> float:
        """Millicores of quota and burst in force; a stranger's raise does not count until it is ours."""
        ours = self.cpu_ours
        if ours is None:
            return 0.0
        return min(charge(self.cpu), charge(ours))

    def memory_charge(self) -> int:
        if self.memory_ours is None or self.memory_ours.max_bytes is None:
            return 0
        ours, held = self.memory_ours.max_bytes, self.memory.max_bytes
        return ours if held is None else min(held, ours)

    # ---- CPU -----------------------------------------------------------------------

    def count(self) -> None:
        """Bring the CPU counters up to now."""
        start, end = self._counted_to, self.clockwork.now
        self._counted_to = end
        if end <= start:
            return
        if self.cpu.quota_usec is None:
            self.usage_usec += self.demand * (end - start) * 1000
            return
        period_s = self.cpu.period_usec / 1e6
        # Each group has a phase of its own (K6).
        phase = (self.key * 7919 % 100) / 100 * period_s
        first, last = (math.floor((at - phase) / period_s) for at in (start, end))
        if self.demand <= 0:
            if last > first:
                self._refill()
            return
        for period in range(first + 1, last + 1):
            boundary = min(phase + period * period_s, end)
            self._work(boundary - start)
            start = boundary
            self.nr_periods += 1
            self.nr_throttled += self._throttled
            self._refill()
        self._work(end - start)

    def _work(self, seconds: float) -> None:
        wanted = self.demand * seconds * 1000
        used = min(wanted, self._left_usec)
        self.usage_usec += used
        self._left_usec -= used
        if used < wanted:
            self._throttled = True
            self.throttled_usec += wanted - used

    def _refill(self) -> None:
        self._left_usec, self._throttled = float(self.cpu.quota_usec or 0), False

    def set_demand(self, milli: int) -> None:
        self.count()
        self.demand = milli

    def write_cpu(self, limit: CpuLimit, *, ours: bool) -> None:
        """Raises as the kernel refuses; ``ours``: Escra writes, not a stranger."""
        self.check_there()
        if self.refuses and ours and limit != self.cpu_original:
            raise LimitRejected(f"the parent of {self.name} has a lower limit")
        if limit.quota_usec is not None and limit.quota_usec < max(MIN_QUOTA_USEC, limit.burst_usec):
            raise LimitRejected(f"a quota of {limit.quota_usec} us for {self.name}")
        self.count()
        self.cpu = limit
        self._refill()
        self._tell_watchers()
        self.cpu_writes += 1
        self.cpu_written_at = self.clockwork.now
        if ours:
            self.cpu_ours = None if limit in (self.cpu_original, *self.cpu_former) else limit
        self.notices.limited(self)

    # ---- memory --------------------------------------------------------------------

    @property
    def used(self) -> int:
        return self.anon + self.cache

    def grow(self, want: int, rate: int) -> None:
        """Its program goes for ``want`` bytes, up or down."""
        self.want, self.rate = want, rate
        if want < self.anon:
            self.anon = want
        self._go()

    def read_files(self, cache: int) -> None:
        room = cache if self.memory.max_bytes is None else max(0, self.memory.max_bytes - self.anon)
        self.cache = min(cache, room)

    def _go(self) -> None:
        if not self._growing and self.there and self.anon < self.want:
            self._growing = True
            self.clockwork.after(GROWTH_STEP_S, self._step)

    def _step(self) -> None:
        self._growing = False
        if not self.there or self.anon >= self.want or self.stalled:
            return
        limit, high = self.memory.max_bytes, self.memory.high_bytes
        step = max(PAGE, int(self.rate * GROWTH_STEP_S))
        if high is not None and self.used > high:
            self.high_events += 1
            # File cache goes first; only who is above it without that is slowed down.
            self.cache = max(0, min(self.cache, high - self.anon))
            if self.used > high:
                step = max(PAGE, int(step * ABOVE_HIGH))
        target, before = min(self.want, self.anon + step), self.used
        if limit is not None and target + self.cache > limit:
            self.cache = max(0, limit - target)
            self.max_events += 1
        if limit is not None and target > limit:
            self.anon = max(self.anon, limit)
            self._at_the_limit()
        else:
            self.anon = target
            if high is not None and self.used > high:
                self._notify()
        for at, listener in list(self.marks.values()):
            if before < at <= self.used and listener is not None:
                listener()
        if not self.stalled:
            self._go()

    def _at_the_limit(self) -> None:
        if self.armed:
            self.stalled = True
            self._notify()
        else:
            self.kill()

    def kill(self) -> None:
        """The OOM killer strikes, and the program is not started again."""
        self.kills += 1
        # Those who judge want to know how it was.
        self.notices.killed(self)
        self.anon = self.want = MIB
        self.stalled = False
        self._notify()

    def _notify(self) -> None:
        if self.listener is not None:
            self.listener()

    def _tell_watchers(self) -> None:
        for found in self.watchers:
            found.add(self.key)

    def disarm(self) -> None:
        self.armed = False
        self._tell_watchers()
        if self.stalled:
            self.kill()

    def write_memory(self, limit: MemoryLimit, *, ours: bool) -> None:
        """Raises as v1 does where more is in use; v2 kills (K12), which nobody of ours may bring about."""
        self.check_there()
        limit = _whole_pages(limit)
        most = limit.max_bytes
        if most is not None and self.used > most:
            self.cache = max(0, min(self.cache, most - self.anon))
            if self.anon > most:
                if not self.banded:
                    raise LimitRejected(f"{self.anon} bytes of {self.name} are in use")
                if ours:
                    self.notices.fault(f"promise 3: {self.name} was cut to {most} with {self.anon} in use")
        self.memory = limit
        self._tell_watchers()
        self.memory_writes += 1
        if ours:
            self.memory_ours = None if self._gives_back(limit) else limit
        self.notices.limited(self)
        if most is not None and self.anon > most:
            self.kill()
        if self.stalled and (most is None or self.anon + PAGE <= most):
            self.stalled = False
        self._go()

    def _gives_back(self, limit: MemoryLimit) -> bool:
        """Its own limit, or as near to that as what is in use allows."""
        had = self.memory_original.max_bytes
        least = self.anon + LEAST_BAND_BYTES
        return limit in (self.memory_original, *self.memory_former) or (
            had is not None and had < self.anon and limit.max_bytes == least // PAGE * PAGE
        )

    def drop_cache(self, limit: MemoryLimit) -> None:
        least = min(limit.max_bytes or self.used, limit.high_bytes or self.used)
        self.cache = max(0, min(self.cache, least - self.anon))

    # ---- its end -------------------------------------------------------------------

    def end(self) -> None:
        self.there = self.stalled = False
        self._tell_watchers()
        self.listener = None
        self.cpu_ours = self.memory_ours = None

    def check_there(self) -> None:
        if not self.there:
            raise CgroupGone(f"cgroup {self.name} does not exist any more")


def charge(limit: CpuLimit) -> float:
    """Quota and burst in millicores (K8)."""
    if limit.quota_usec is None:
        return float("inf")
    return (limit.quota_usec + limit.burst_usec) * 1000 / limit.period_usec


def _whole_pages(limit: MemoryLimit) -> MemoryLimit:
    def whole(size: int | None) -> int | None:
        return None if size is None else size // PAGE * PAGE

    return MemoryLimit(whole(limit.max_bytes), whole(limit.high_bytes), whole(limit.swap_bytes))
