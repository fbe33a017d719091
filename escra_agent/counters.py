"""One reading of a cgroup's CPU counters, as a value for those who only compute."""

from dataclasses import dataclass

from escra_common.messages import CpuLimit


@dataclass(frozen=True, slots=True)
class Counters:
    """Cumulative kernel counters, and the limit in force; ``time_usec`` is CLOCK_MONOTONIC at the read."""

    time_usec: int
    usage_usec: int
    nr_periods: int
    nr_throttled: int
    throttled_usec: int
    limit: CpuLimit
