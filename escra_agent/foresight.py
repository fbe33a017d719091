"""When a container is about to run out of quota, from readings within its periods.  Pure.

The kernel says that a period was cut short when it is over; the time used is live (K5).  So what was used
since the period began, and how fast, says beforehand whether the quota will do.
"""

from typing import Final

from escra_agent.counters import Counters
from escra_agent.perioduse import Period

# Who may run out soon is looked at again after the shorter time.
NEAR_USEC, FAR_USEC = 10_000, 20_000
# What is left of a quota then may be nothing: processors keep up to a slice of it for themselves (K2).
DRY: Final = 0.97
# So late in a period help comes with the next one anyhow; so long after it began that is seen.
LEAST_LEFT_USEC = 8_000
NEXT_USEC = 1_000
# Said so often about a quota, once in a period: the controller may have been waiting for another order to be
# carried out.  Then it knows, and a wish that it cannot meet stands so long.
SAID_AT_MOST = 2
SAY_AGAIN_USEC = 500_000


class Foresight:
    """One per container that is looked at.  ``due_usec`` is when it wants the next reading."""

    __slots__ = ("_last", "_said", "_times_said", "dry", "due_usec", "rate")

    def __init__(self) -> None:
        self._last: Counters | None = None
        # When it was last said that the quota will not do, and how often of this quota.
        self._said: Counters | None = None
        self._times_said = 0
        self.due_usec = 0
        # Whether this period's quota will not do, and the rate of use (cores).
        self.dry = False
        self.rate = 0.0

    def look(self, now: Counters, period: Period | None) -> bool:
        """Whether it is to be said that the quota will not do for this period, or did not for the last.

        ``period`` is what is known of the present one.
        """
        if not self._short(now, period):
            return False
        said = self._said
        if said is None or said.limit != now.limit or now.time_usec - said.time_usec >= SAY_AGAIN_USEC:
            self._times_said = 0
        elif self._times_said >= SAID_AT_MOST or said.nr_periods == now.nr_periods:
            return False
        self._said, self._times_said = now, self._times_said + 1
        return True

    def _short(self, now: Counters, period: Period | None) -> bool:
        last, self._last = self._last, now
        self.due_usec = now.time_usec + NEAR_USEC
        self.dry = False
        quota = now.limit.quota_usec
        if last is None or quota is None or now.time_usec <= last.time_usec:
            return False
        throttled = now.nr_throttled != last.nr_throttled
        if period is None:
            return throttled
        used, next_usec = period.used_usec, period.began_usec + now.limit.period_usec
        rate = (now.usage_usec - last.usage_usec) / (now.time_usec - last.time_usec)
        left_usec = next_usec - now.time_usec
        self.rate = max(rate, self.rate / 2)
        if not throttled and used + rate * 2 * FAR_USEC < quota:
            self.due_usec = now.time_usec + FAR_USEC
        if left_usec < LEAST_LEFT_USEC:
            self.due_usec = min(self.due_usec, next_usec + NEXT_USEC)
            return throttled
        soon = used + rate * NEAR_USEC >= quota and used + rate * left_usec > quota
        self.dry = soon or used >= DRY * quota
        return throttled or self.dry
