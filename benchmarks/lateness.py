"""How much of a group's quota lies late in its period, for no fault of its limit.

A window of 1 s may begin anywhere.  When it begins in a period whose burst is late, because its load rested
or others had the processor, it holds the rest of that burst, the nine after it, and so much of the next as
runs until the window ends: more than ten quotas.  The kernel alone does that as well.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from escra_agent.counters import Counters


class Beginnings:
    """When the periods of a group began, in us: the kernel's timer goes on by whole periods, also past those
    in which it was off, so all of them lie on a grid.  None is noticed before it began, and so the promptest
    one is the best known: what is believed is never too early.
    """

    def __init__(self, readings: Sequence[Counters] = ()) -> None:
        self._one_usec: int | None = None
        for before, now in pairwise(readings):
            self.look(before, now)

    def look(self, before: Counters, now: Counters) -> None:
        """Two readings, one after the other."""
        half_usec = now.limit.period_usec // 2
        if before.nr_periods == now.nr_periods or now.time_usec - before.time_usec > half_usec:
            return
        began_usec = self.last(now)
        # Nearer to the next one than to the one known: that begins earlier than was believed.
        if began_usec is None or now.time_usec - began_usec > half_usec:
            self._one_usec = now.time_usec

    def last(self, now: Counters) -> int | None:
        """Of the period in which this reading is; None before one was seen to begin."""
        if self._one_usec is None:
            return None
        return now.time_usec - (now.time_usec - self._one_usec) % now.limit.period_usec


def late_usec(readings: Sequence[Counters], index: int, beginnings: Beginnings) -> int:
    """Up to so much more than ten quotas may be used in the second after ``readings[index]``.

    It is what the group would have used of its quota by then, had it run since the period began, and did not,
    but will before the period ends.  Time in which it was throttled is not counted, so a second quota within
    a period, or a larger one, is nobody's lateness.  What readings leave open explains nothing.
    0 unless readings reach from before the period until after it.
    """
    now = readings[index]
    began_usec = beginnings.last(now)
    if began_usec is None:
        return 0
    quota_usec, ends_usec = now.limit.quota_usec, began_usec + now.limit.period_usec
    begins, ends = bisect_right(readings, began_usec, key=_time), bisect_left(readings, ends_usec, key=_time)
    if not begins or ends == len(readings):
        return 0
    before, first, last, after = readings[begins - 1], readings[begins], readings[ends - 1], readings[ends]
    on_time_usec = now.time_usec - began_usec
    if quota_usec is not None:
        on_time_usec = min(on_time_usec, quota_usec + now.limit.burst_usec)
    # Booked when it ends: with the period, which is not counted, or by a write within it.
    throttled_usec = last.throttled_usec - first.throttled_usec
    # What it used between the last reading and the end of the period is not told from what came after.
    later_usec = max(last.usage_usec, after.usage_usec - (after.time_usec - ends_usec)) - now.usage_usec
    missed_usec = on_time_usec - (now.usage_usec - before.usage_usec) - throttled_usec
    return max(0, min(missed_usec, later_usec))


def _time(reading: Counters) -> int:
    return reading.time_usec
