"""What the agent knows of one container."""

from collections.abc import Callable
from dataclasses import dataclass, field

from escra_agent.caps import UNCAPPED, HostCaps, Pace, Resource, least_of
from escra_agent.cgroupfs import Cgroup
from escra_agent.counters import Counters, MemoryReading
from escra_agent.labels import Labels
from escra_agent.memoryfiles import Pulse
from escra_agent.memorygroup import MemoryGroup
from escra_agent.memoryplan import MemoryPlan
from escra_agent.planner import Plan
from escra_agent.sampler import Sampler
from escra_common.messages import Container, ContainerMemory, CpuLimit, MemoryLevel, MemoryLimit, Mode

NO_PULSE = Pulse(0, False, False, 0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody says that a container should take part.  ``problem`` is why it cannot."""

    id: str
    name: str
    open: Callable[[], Cgroup]
    labels: Labels
    problem: str = ""


@dataclass(slots=True)
class TrackedMemory:
    """``failures`` is what MemoryGroup.failures said last, ``told`` the level sent last.

    ``cuts`` is how many the cutter has yet to make, ``suspect`` that the limits may be others than ours,
    ``told_all`` that at the last turn there was nothing to tell, ``settled`` that nothing is under way.
    """

    group: MemoryGroup
    original: MemoryLimit
    last: MemoryReading
    plan: MemoryPlan
    cap_bytes: int | None
    failures: list[int]
    problem: str = ""
    peak_bytes: int = 0
    pulse: Pulse = NO_PULSE
    cuts: int = 0
    watched: bool = False
    suspect: bool = True
    told_all: bool = False
    settled: bool = False
    drift_logged: bool = False
    told: MemoryLevel | None = None
    pace: Pace = field(default_factory=Pace)

    def describe(self, cap_bytes: int | None = None) -> ContainerMemory:
        """``cap_bytes`` where there is a tighter one than the tree's."""
        return ContainerMemory(
            original=self.original,
            in_force=self.plan.wanted or self.last.limit,
            managed=self.plan.wanted is not None,
            needed_bytes=self.plan.needed_bytes,
            cap_bytes=least_of(cap_bytes, self.cap_bytes),
            problem=self.problem[:1000],
        )

    def level(self, key: int) -> MemoryLevel:
        last = self.last
        return MemoryLevel(
            key,
            last.used_bytes,
            last.limit_bytes,
            last.oom_events,
            last.oom_kills,
            max(self.peak_bytes, last.used_bytes),
            self.plan.cache_bytes,
            last.high_events,
            last.max_events,
        )


@dataclass(slots=True)
class Tracked:
    """``memory`` is None where there is no memory controller for it.

    ``rooms`` is what was told that the host's totals leave for it, after an order was refused for that;
    ``refusals`` are the causes that were logged.  ``observed``: its host only looks on.

    While ``resting``, no tick visits it (resting.py).  ``watched``: the kernel gives notice of whoever writes
    its limits, and ``suspect`` says that it did.  ``moved_usec`` is when its counters last moved.
    """

    candidate: Candidate
    cgroup: Cgroup
    original: CpuLimit
    last: Counters
    plan: Plan
    cap_milli: int | None
    pinned: bool
    memory: TrackedMemory | None
    sampler: Sampler = field(default_factory=Sampler)
    observed: bool = False
    idle: bool = False
    resting: bool = False
    watched: bool = False
    suspect: bool = True
    moved_usec: int = 0
    drift_logged: bool = False
    caps: HostCaps = UNCAPPED
    pace: Pace = field(default_factory=Pace)
    rooms: dict[Resource, int] = field(default_factory=dict)
    refusals: set[str] = field(default_factory=set)

    @property
    def key(self) -> int:
        return self.cgroup.key

    @property
    def ours(self) -> bool:
        """Whether its limits may be changed."""
        return self.mode == "auto" and not self.candidate.problem

    @property
    def mode(self) -> Mode:
        asked = self.candidate.labels.mode
        return "observe" if self.observed and asked == "auto" else asked

    @property
    def settled(self) -> bool:
        """Whether nothing is under way and nothing has moved for a period, so that its timer is off (K5)."""
        last = self.last
        return (
            self.idle
            and self.watched
            and not self.suspect
            and self.plan.waiting is None
            and self.sampler.can_wait
            and last.time_usec - self.moved_usec > last.limit.period_usec
            and (self.memory is None or self.memory.settled)
        )

    @property
    def most_milli(self) -> int | None:
        """Its ceiling, whoever set it; None where there is none but the host itself."""
        return least_of(self.candidate.labels.cpu_max_milli, self._ceiling("cpu", self.cap_milli))

    def new_controller(self) -> None:
        """Another connection: what was told on the last one is told again, and its orders are void."""
        self.resting, self.sampler = False, Sampler()
        self.plan.new_controller()
        if self.memory is not None:
            self.memory.told, self.memory.settled = None, False
            self.memory.plan.new_controller()

    def look_at_all(self) -> None:
        """At the next visit, also at what only others change."""
        self.suspect, self.resting = True, False
        if self.memory is not None:
            self.memory.suspect = True

    def suspect_limits(self) -> None:
        """Somebody wrote them: whatever they are now is to be told."""
        self.look_at_all()
        if self.memory is not None:
            self.memory.told_all = False

    def describe(self) -> Container:
        """As the controller should know it.

        A limit that somebody else changed under us is repaired within a tick, so what we stand for is said.
        This host's caps are in the bounds: a controller that keeps to these never gives an order to refuse.
        """
        labels = self.candidate.labels
        memory = self.memory
        return Container(
            key=self.key,
            id=self.candidate.id,
            name=self.candidate.name,
            app=labels.app,
            cgroup=self.cgroup.path,
            mode=self.mode,
            original=self.original,
            in_force=self.plan.stands_for or self.last.limit,
            managed=self.plan.wanted is not None,
            weight=labels.weight,
            cpu_min_milli=self.caps.least(labels, "cpu"),
            cpu_max_milli=labels.cpu_max_milli,
            memory_min_bytes=self.caps.least(labels, "memory"),
            memory_max_bytes=labels.memory_max_bytes,
            cap_milli=self._ceiling("cpu", self.cap_milli),
            pinned=self.pinned,
            problem=self.candidate.problem[:1000],
            memory=None if memory is None else memory.describe(self._ceiling("memory", memory.cap_bytes)),
        )

    def _ceiling(self, resource: Resource, above: int | None) -> int | None:
        return least_of(self.caps.ceiling(resource, above), self.rooms.get(resource))
