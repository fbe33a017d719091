"""One reading of a cgroup's CPU counters or of its memory, as values for those who only compute."""

from dataclasses import dataclass
from typing import NamedTuple

from escra_common.messages import CpuLimit, MemoryLimit


class Counters(NamedTuple):
    """Cumulative kernel counters, and the limit in force; ``time_usec`` is CLOCK_MONOTONIC at the read."""

    time_usec: int
    usage_usec: int
    nr_periods: int
    nr_throttled: int
    throttled_usec: int
    limit: CpuLimit


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """The counts are cumulative: memory.high passed, the limit met, nothing left to free there, tasks killed.

    v1 knows no memory.high, and counts kills only, so there ``oom_events`` are the same as ``oom_kills``.
    ``stalled``: tasks wait at the limit for memory (v1, only while ``armed``: the OOM killer is off, K11).
    """

    used_bytes: int
    limit: MemoryLimit
    high_events: int
    max_events: int
    oom_events: int
    oom_kills: int
    stalled: bool = False
    armed: bool = False

    @property
    def limit_bytes(self) -> int | None:
        return self.limit.max_bytes
