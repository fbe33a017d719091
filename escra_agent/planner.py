"""What the limit of one container should be, and when it may be written.  Pure.

Every write of a quota refills it (K3) and hides throttling (K4).  So a limit is written only
when it changes; an aligned order waits for the period boundary, where the refill finds
nothing used; and what somebody else wrote is put right once per tick.

Where it is known what is used of a period, it need not be waited for: the quota that is ordered, less what is
used, is written for the rest of the period, and the whole of it at the boundary.  What processors had
taken of the old quota and not used yet is void at a write (K3), and what they used but was not
accounted for yet is charged after it.
"""

from dataclasses import dataclass, replace

from escra_agent.counters import Counters
from escra_agent.perioduse import PeriodUse, Used
from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import MIN_QUOTA_USEC, quota_usec

# A boundary that does not come within this many periods is not coming: the group sleeps,
# its timer is off (K5), and a refill changes nothing.
PATIENCE_PERIODS = 1.5
# A boundary noticed later than this may have been used for long already: the next one will do,
# but not for ever on a machine that is busy all the time.
PUNCTUAL_S = 0.006
MOST_BOUNDARIES = 4
# The rest of a period is not worth a write when it is less than this, or, of a cut, than this share of
# the new quota: it is not to be throttled by a cut that could wait.
LEAST_REST_USEC = 2_000
LEAST_CUT_REST = 0.5


@dataclass(frozen=True, slots=True)
class Waiting:
    """An aligned order: ``limit`` is to be written when ``nr_periods`` has moved on.

    ``usage_usec`` was read at ``since``, ``nr_periods`` was last looked at ``looked_at`` (monotonic s).
    """

    limit: CpuLimit
    nr_periods: int
    usage_usec: int
    since: float
    looked_at: float
    missed: int = 0


class Plan:
    """``wanted`` is the limit we stand for, None while the container is not managed.

    ``rev`` is the revision of the last order, ``obeyed_rev`` that of the last one that was written.
    """

    def __init__(self, held: CpuLimit | None) -> None:
        self.wanted = held
        self.waiting: Waiting | None = None
        self.rev = self.obeyed_rev = 0
        # What the write that was asked for last lets through beyond its limit, at most.
        self.extra_usec = 0
        self._use = PeriodUse()
        # The limit of which ``wanted`` is what it leaves for the rest of the period.
        self._rest_of: CpuLimit | None = None

    @property
    def stands_for(self) -> CpuLimit | None:
        """The limit of this period; part of it may have been used before what is in force was written."""
        return self._rest_of or self.wanted

    def saw(self, counters: Counters) -> None:
        """A reading, whatever it was for."""
        self._use.saw(counters)

    def new_controller(self) -> None:
        """Another connection, another order book: what was still waiting is void."""
        self.waiting = None
        self.rev = self.obeyed_rev = 0

    def left_over(self) -> CpuLimit | None:
        """What to write when the rest of a period is in force and nothing waits any more for its end."""
        return self._rest_of if self.waiting is None else None

    def take(self, order: CpuOrder, counters: Counters, now: float, *, idle: bool) -> CpuLimit | None:
        """The limit to write now, or None when it must wait or is out of date.

        The period stays what the kernel holds (K7).  ``idle``: nothing was used since the last tick.
        """
        if order.rev <= self.rev:
            return None
        self.rev = order.rev
        period = counters.limit.period_usec
        quota = quota_usec(order.cpu_milli, period)
        burst = min(quota, order.burst_milli * period // 1000)
        limit, used = CpuLimit(quota, period, burst), self._use.saw(counters)
        self.waiting = None
        if order.aligned and not idle:
            self.waiting = Waiting(limit, counters.nr_periods, counters.usage_usec, now, now)
            return self._rest(limit, used)
        self.extra_usec = 0 if idle else _extra_usec(counters.limit, limit, used)
        return limit

    def refuse(self, order: CpuOrder) -> bool:
        """It is not carried out, and voids those before it; False when it is out of date itself."""
        if order.rev <= self.rev:
            return False
        self.rev = order.rev
        self.waiting = None
        return True

    def due(self, counters: Counters, now: float) -> CpuLimit | None:
        """The waiting limit, once its time has come; ask again every few milliseconds.

        While it goes on waiting, it is but what it leaves for the rest of this period.
        """
        waiting, used = self.waiting, self._use.saw(counters)
        if waiting is None:
            return None
        if counters.nr_periods != waiting.nr_periods:
            late = now - waiting.looked_at > PUNCTUAL_S and waiting.missed + 1 < MOST_BOUNDARIES
            # What was the rest of a period is too little for a whole one.
            ready, missed = not late or self._rest_of is not None, waiting.missed + 1
        else:
            patience_s = PATIENCE_PERIODS * waiting.limit.period_usec / 1e6
            if now - waiting.since < patience_s:
                self.waiting = replace(waiting, looked_at=now)
                return self._rest(waiting.limit, used) if self._rest_of != waiting.limit else None
            ready, missed = counters.usage_usec == waiting.usage_usec, waiting.missed
        self.waiting = None
        if ready:
            self.extra_usec = _extra_usec(counters.limit, waiting.limit, used)
            return waiting.limit
        self.waiting = Waiting(waiting.limit, counters.nr_periods, counters.usage_usec, now, now, missed)
        return None

    def _rest(self, limit: CpuLimit, used: Used | None) -> CpuLimit | None:
        """What ``limit`` leaves of this period; None where that is not known well enough to be of use."""
        held = self.stands_for
        left_usec = _left_usec(held, limit, used) if held is not None and used is not None else None
        if left_usec is None:
            return None
        self._rest_of, self.extra_usec = limit, 0
        return CpuLimit(left_usec, limit.period_usec)

    def wrote(self, in_force: CpuLimit) -> None:
        """What the kernel held after our write."""
        self.wanted = in_force
        if self.waiting is None:
            self._rest_of = None

    def obeyed(self) -> None:
        """The last order was written: what is seen from now on belongs to it."""
        self.obeyed_rev = self.rev

    def repair(self, in_force: CpuLimit, original: CpuLimit) -> CpuLimit | None:
        """The limit to write again because somebody else changed it; None when all is well.

        So is one that has become the original, because somebody made that another one.
        """
        if self.wanted is None:
            return None
        ours = told_apart(self.wanted, original)
        if in_force == ours:
            return None
        if _same_share(in_force, self.wanted):
            # The kernel doubled period and quota by itself (K7): the same limit, in a new period.
            self.wanted = in_force
            return None
        return ours


def told_apart(limit: CpuLimit, original: CpuLimit) -> CpuLimit:
    """A limit of ours as it is written: never the original itself, but a microsecond below it.

    By that an agent that was killed knows in its next life that the container is managed, and a controller
    that it is counted.  The least quota there is (K1) cannot be lowered; it is worth 1 % of a processor.
    """
    quota_usec = limit.quota_usec
    if limit != original or quota_usec is None or quota_usec <= MIN_QUOTA_USEC:
        return limit
    return CpuLimit(quota_usec - 1, limit.period_usec, min(limit.burst_usec, quota_usec - 1))


def _left_usec(held: CpuLimit, limit: CpuLimit, used: Used) -> int | None:
    """What a write in the middle of a period may hand out, so that it amounts to ``limit`` in all.

    With a burst (K8) what it hands out does not follow from the quotas.
    """
    before, after = held.quota_usec, limit.quota_usec
    if before is None or after is None or held.burst_usec or limit.burst_usec:
        return None
    left = after - used.at_most
    least = before - used.at_least if after > before else int(LEAST_CUT_REST * after)
    return left if left >= max(least, LEAST_REST_USEC) else None


def _extra_usec(held: CpuLimit, limit: CpuLimit, used: Used | None) -> int:
    """What was used of a period before a whole quota is handed out in it; who had no limit is forgiven."""
    if held.quota_usec is None or limit.quota_usec is None:
        return 0
    if used is None or held.burst_usec or limit.burst_usec:
        return limit.quota_usec
    return min(limit.quota_usec, used.at_most)


def _same_share(a: CpuLimit, b: CpuLimit) -> bool:
    if a.quota_usec is None or b.quota_usec is None or a.burst_usec != b.burst_usec:
        return False
    return a.period_usec != b.period_usec and a.quota_usec * b.period_usec == b.quota_usec * a.period_usec
