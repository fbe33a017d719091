"""How much of a period's quota is used, from readings at any time.  Pure.

Readings do not say when a period began, only that one did between two of them.
"""

from typing import NamedTuple

from escra_agent.counters import Counters


class Used(NamedTuple):
    """Since the period began, in us."""

    at_least: int
    at_most: int


class PeriodUse:
    __slots__ = ("_before_usec", "_first_usec", "_last")

    def __init__(self) -> None:
        self._last: Counters | None = None
        # Usage at the last reading in an earlier period, and at the first one in this period.
        self._before_usec: int | None = None
        self._first_usec = 0

    def saw(self, now: Counters) -> Used | None:
        """None until a period was seen to begin."""
        last, self._last = self._last, now
        if last is not None and last.nr_periods != now.nr_periods:
            self._before_usec, self._first_usec = last.usage_usec, now.usage_usec
        if self._before_usec is None:
            return None
        return Used(now.usage_usec - self._first_usec, now.usage_usec - self._before_usec)
