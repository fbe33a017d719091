"""How late a load that always wants one processor is in its period, for no fault of its limit.

A window of 1 s may begin anywhere.  When it begins in a period whose burst is late by d, because others
had the processor or the timer was late, it holds the rest of that burst, the nine after it, and so much of
the next as runs in its last moments: up to d more than ten quotas.  The kernel alone does that as well.
"""

from collections.abc import Sequence
from itertools import pairwise

from escra_agent.counters import Counters


def late_starts_usec(readings: Sequence[Counters]) -> list[int]:
    """For each reading, how late the load is when it runs next in this period; 0 where it does not.

    That is the time since the period began in which it neither ran nor was throttled.  A period is noticed
    after it began, so a little of the lateness is missed, and nothing made up.
    """
    late = [0] * len(readings)
    lag = iter(_lags_usec(readings))
    used_before = throttled_usec = lag_usec = 0
    first: Counters | None = None
    for index, (before, now) in enumerate(pairwise(readings)):
        if before.nr_periods != now.nr_periods:
            first, lag_usec, used_before, throttled_usec = now, next(lag), before.usage_usec, 0
        elif first is not None:
            # The kernel books throttled time when it ends: what lies before the period is not of it.
            throttled_usec += min(now.throttled_usec - before.throttled_usec, now.time_usec - first.time_usec)
            if now.usage_usec > before.usage_usec:
                since_usec = lag_usec + now.time_usec - first.time_usec
                late[index] = max(0, since_usec - (now.usage_usec - used_before) - throttled_usec)
    for index in range(len(readings) - 2, -1, -1):
        now, after = readings[index : index + 2]
        if now.usage_usec == after.usage_usec and now.nr_periods == after.nr_periods:
            late[index] = late[index + 1]
    return late


def _lags_usec(readings: Sequence[Counters]) -> list[int]:
    """How long after it began each period was noticed, for the kernel's timer goes on by whole periods.

    Compared with the promptest one; not counted, for a period may go by uncounted when nothing runs.
    """
    begins = [
        after.time_usec for before, after in pairwise(readings) if before.nr_periods != after.nr_periods
    ]
    if not begins:
        return []
    period_usec = readings[0].limit.period_usec
    half = period_usec // 2
    offsets = [(at - begins[0] + half) % period_usec - half for at in begins]
    return [offset - min(offsets) for offset in offsets]
