"""How much of a period's quota is used, from readings at any time.  Pure.

Readings do not say when a period began, only that one did between two of them.
"""

from typing import NamedTuple

from escra_agent.counters import Counters
from escra_agent.periodgrid import PeriodGrid
from escra_common.messages import CpuLimit

# Use is to be within the limit in any window so long: over so many periods what is owed fades.
WINDOW_USEC = 1_000_000
# A rate of use is measured over so long, and each one counts so much less once another is.
RATE_USEC, FADE = 90_000, 0.8
# The kernel's timer may be so late: until then it is open whether the next period has begun.
TIMER_LATE_USEC = 2_000


class Used(NamedTuple):
    """Since the period began, in us."""

    at_least: int
    at_most: int


class Period(NamedTuple):
    """The present one, as likely as not: when it began (monotonic us), and what was used since, in us."""

    began_usec: int
    used_usec: int


class PeriodUse:
    """``over_usec``: so much at least was used beyond the limit of the period before this one.

    A processor may run past the end of a quota until its next timer tick (4 ms at 250 Hz).  The kernel takes
    that from the next period, but a write of the quota forgives it (K3).  ``owed_usec`` is what was used
    beyond the limits lately and was not made up for.  ``throttled``: it was when the last period ended.
    ``lately`` is about the highest rate of use of the last second, in cores.

    ``moved_usec`` is what others gave for this period, less than 0 when it was given to others: it counts as
    not used, or as used.
    """

    __slots__ = (
        "_base_usec",
        "_before_usec",
        "_began_usec",
        "_first",
        "_grid",
        "_last",
        "_mark",
        "lately",
        "moved_usec",
        "over_usec",
        "owed_usec",
        "throttled",
    )

    def __init__(self) -> None:
        self.over_usec = self.owed_usec = 0
        self.throttled = False
        self.lately = 0.0
        self.moved_usec = 0
        self._last: Counters | None = None
        # The reading from which on the next rate is measured.
        self._mark: Counters | None = None
        # Usage at the last reading in an earlier period, and the first reading in this one.
        self._before_usec = 0
        self._first: Counters | None = None
        self._grid = PeriodGrid()
        # Usage when this period began, likely.
        self._base_usec = 0
        # What it was at most when this period began.
        self._began_usec = 0

    def saw(self, now: Counters, limit: CpuLimit | None) -> Used | None:
        """None until a period was seen to begin; ``limit`` is what was in force until now, if any."""
        last, self._last = self._last, now
        if last is not None and last.nr_periods != now.nr_periods:
            self._ended(last, now, limit)
        self._measure(now)
        if self._first is None:
            return None
        used_usec = now.usage_usec - self.moved_usec
        return Used(used_usec - self._first.usage_usec, used_usec - self._before_usec)

    def period(self, now: Counters) -> Period | None:
        """``now`` is the reading that ``saw`` was told of last; None where nothing sensible can be said."""
        first, began_usec = self._first, self._grid.began_usec(now.time_usec)
        if first is None or began_usec is None or self._may_go_on(began_usec, now):
            return None
        return Period(began_usec, now.usage_usec - self._base_usec - self.moved_usec)

    def ends_usec(self, period_usec: int) -> int:
        """When the period of the last reading ends (monotonic us), as likely as not; 0 if not known."""
        last = self._last
        began_usec = None if last is None else self._grid.began_usec(last.time_usec)
        if last is None or began_usec is None:
            return 0
        return began_usec if self._may_go_on(began_usec, last) else began_usec + period_usec

    def _may_go_on(self, began_usec: int, now: Counters) -> bool:
        """Whether a period that should have begun then may not have: the one before it ends any moment."""
        seen = self._first is not None and began_usec <= self._first.time_usec
        return not seen and now.time_usec - began_usec < TIMER_LATE_USEC

    def _measure(self, now: Counters) -> None:
        mark = self._mark or now
        elapsed_usec = now.time_usec - mark.time_usec
        if elapsed_usec >= RATE_USEC:
            self.lately = max((now.usage_usec - mark.usage_usec) / elapsed_usec, FADE * self.lately)
        if elapsed_usec >= RATE_USEC or self._mark is None:
            self._mark = now

    def _ended(self, last: Counters, now: Counters, limit: CpuLimit | None) -> None:
        if (
            limit is None
            or limit.quota_usec is None
            or limit.burst_usec
            or now.nr_periods > last.nr_periods + 1
        ):
            self.over_usec = self.owed_usec = 0
        elif self._first is not None:
            beyond_usec = last.usage_usec - self._began_usec - self.moved_usec - limit.quota_usec
            kept = max(0, WINDOW_USEC - limit.period_usec) * self.owed_usec // WINDOW_USEC
            self.over_usec, self.owed_usec = max(0, beyond_usec), max(0, kept + beyond_usec)
        self.moved_usec = 0
        self._before_usec, self._first = last.usage_usec, now
        # Who was throttled when the period ended used nothing more of it.
        self.throttled = now.nr_throttled != last.nr_throttled
        self._began_usec = last.usage_usec if self.throttled else now.usage_usec
        self._grid.saw(last, now)
        self._base_usec = last.usage_usec if self.throttled else self._usage_at_begin(last, now)

    def _usage_at_begin(self, last: Counters, now: Counters) -> int:
        began_usec = self._grid.began_usec(now.time_usec) or now.time_usec
        elapsed_usec = max(1, now.time_usec - last.time_usec)
        since_usec = min(elapsed_usec, now.time_usec - began_usec)
        return now.usage_usec - (now.usage_usec - last.usage_usec) * since_usec // elapsed_usec
