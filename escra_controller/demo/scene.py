"""The scene of the demo: who wants how much CPU when, and what came of it.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

APP = "demo"


@dataclass(frozen=True, slots=True)
class Scene:
    """Three services under one limit; which of them is busy changes every ``shift_s`` seconds.

    Together they fit the limit at all times; the busy one does not fit a fixed third of it.
    """

    omega_milli: int = 1500
    names: tuple[str, ...] = ("web", "api", "jobs")
    busy_milli: int = 900
    calm_milli: int = 120
    shift_s: float = 5.0
    ramp_s: float = 0.5

    def demand(self, index: int, at_s: float) -> float:
        """The cores that service ``index`` wants, ``at_s`` seconds into a phase."""
        return (self.calm_milli + (self.busy_milli - self.calm_milli) * self._busyness(index, at_s)) / 1000

    def busy(self, at_s: float) -> str:
        return self.names[int(at_s / self.shift_s) % len(self.names)]

    @property
    def fixed_milli(self) -> int:
        return self.omega_milli // len(self.names)

    def _busyness(self, index: int, at_s: float) -> float:
        """From 0 to 1: load moves over within ``ramp_s``, not from one request to the next."""
        slot, into = divmod(at_s, self.shift_s)
        moved = min(1.0, into / self.ramp_s) if slot > 0 else 1.0
        if int(slot) % len(self.names) == index:
            return moved
        if slot > 0 and (int(slot) - 1) % len(self.names) == index:
            return 1.0 - moved
        return 0.0


def scene_for(cpus: int) -> Scene:
    """The scene at the size of the machine: where there is one CPU, the daemons need some of it too."""
    if cpus >= 2:
        return Scene()
    return Scene(omega_milli=600, busy_milli=360, calm_milli=50)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel says about one group: its limit with the burst, and cumulative counters."""

    limit_milli: int
    usage_usec: int
    nr_periods: int
    nr_throttled: int
    throttled_usec: int


@dataclass(frozen=True, slots=True)
class Frame:
    """All groups at one moment, ``at_s`` seconds into the phase, by name."""

    at_s: float
    readings: Mapping[str, Reading]

    @property
    def allocated_milli(self) -> int:
        return sum(reading.limit_milli for reading in self.readings.values())


@dataclass(frozen=True, slots=True)
class Work:
    """What clients saw, in seconds of CPU; ``waits_ms`` is empty where requests are not told apart."""

    offered_s: float
    done_s: float
    waits_ms: Sequence[int] = ()


@dataclass(slots=True)
class Phase:
    """One run of the scene: all frames, and the work done in it.

    ``idle`` is the share of the machine's CPU time that nobody used.
    """

    title: str
    frames: list[Frame] = field(default_factory=list)
    work: Work = Work(0.0, 0.0)
    idle: float = 1.0

    @property
    def throttled_share(self) -> float:
        """Throttled periods per period in which a group ran, over all groups."""
        periods = self._grown("nr_periods")
        return self._grown("nr_throttled") / periods if periods else 0.0

    @property
    def throttled_s(self) -> float:
        return self._grown("throttled_usec") / 1e6

    @property
    def most_allocated_milli(self) -> int:
        return max(frame.allocated_milli for frame in self.frames)

    def answered_within(self, wait_ms: int) -> float | None:
        """The share of all requests, also of those given up, that were done within this time."""
        waits, work = self.work.waits_ms, self.work
        if not waits:
            return None
        return sum(wait <= wait_ms for wait in waits) / len(waits) * work.done_s / work.offered_s

    def _grown(self, counter: str) -> int:
        first, last = self.frames[0].readings, self.frames[-1].readings
        return sum(getattr(last[name], counter) - getattr(first[name], counter) for name in last)


def used_cores(earlier: Frame, later: Frame, name: str) -> float:
    grown = later.readings[name].usage_usec - earlier.readings[name].usage_usec
    elapsed = later.at_s - earlier.at_s
    return grown / 1e6 / elapsed if elapsed > 0 else 0.0


def throttled_ratio(earlier: Frame, later: Frame, name: str) -> float:
    """Throttled periods per period between two frames; 0 when no period passed."""
    before, after = earlier.readings[name], later.readings[name]
    periods = after.nr_periods - before.nr_periods
    return (after.nr_throttled - before.nr_throttled) / periods if periods > 0 else 0.0
