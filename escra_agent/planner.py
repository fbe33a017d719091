"""What the limit of one container should be, and when it may be written.  Pure.

Every write of a quota refills it (K3) and hides throttling (K4).  So a limit is written only
when it changes; an aligned order waits for the period boundary, where the refill finds
nothing used; and what somebody else wrote is put right once per tick.

Where it is known what is used of a period, it need not be waited for: the quota that is ordered, less what is
used, is written for the rest of the period, and the whole of it at the boundary.  What processors had
taken of the old quota and not used yet is void at a write (K3), and what they used but was not
accounted for yet is charged after it.

A write also forgives by how much the last period was overrun (K3), and a boundary is noticed a little late.
Over the orders of a second that would add up: what was used beyond the limits is taken off at the next raise
to a container's ceiling.
"""

from dataclasses import dataclass, replace

from escra_agent.counters import Counters
from escra_agent.perioduse import Period, PeriodUse, Used
from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import MIN_QUOTA_USEC, quota_usec

# A boundary that does not come within this many periods is not coming: the group sleeps,
# its timer is off (K5), and a refill changes nothing.
PATIENCE_PERIODS = 1.5
# A period of which more than this was used before its boundary was noticed (below the ceiling: twice that) is
# left out, or only what is left of it is handed out; but not for ever on a machine that is busy all the time.
LATE_USEC, LATE_SHARE = 3_000, 0.05
MOST_BOUNDARIES = 4
# The rest of a period is not worth a write when it is less than this, or, of a cut, than this share of
# the new quota: it is not to be throttled by a cut that could wait.
LEAST_REST_USEC = 2_000
LEAST_CUT_REST = 0.5
# What is owed is taken off when it is more than what most writes forgive, which is a part of a timer tick.
LEAST_OWED_USEC, LEAST_OWED_SHARE = 2_000, 0.1


@dataclass(frozen=True, slots=True)
class Waiting:
    """An aligned order: ``limit`` is to be written when ``nr_periods`` has moved on.

    ``usage_usec`` was read at ``since`` (monotonic s).  ``ceiling``: see ``take``.  ``tried`` is how many
    boundaries went by.
    """

    limit: CpuLimit
    nr_periods: int
    usage_usec: int
    since: float
    ceiling: bool
    tried: int = 0


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
        self._use.saw(counters, self.stands_for)

    def period(self, counters: Counters) -> Period | None:
        """What is known of the period in which the last reading was made, which this is."""
        return self._use.period(counters)

    def new_controller(self) -> None:
        """Another connection, another order book: what was still waiting is void."""
        self.waiting = None
        self.rev = self.obeyed_rev = 0

    def left_over(self) -> CpuLimit | None:
        """What to write when the rest of a period is in force and nothing waits any more for its end."""
        return self._rest_of if self.waiting is None else None

    def take(
        self, order: CpuOrder, counters: Counters, now: float, *, idle: bool, ceiling: bool = False
    ) -> CpuLimit | None:
        """The limit to write now, or None when it must wait or is out of date.

        The period stays what the kernel holds (K7).  ``idle``: nothing was used since the last tick.
        ``ceiling``: the container may never have more than this, or hardly.
        """
        if order.rev <= self.rev:
            return None
        self.rev = order.rev
        period = counters.limit.period_usec
        quota = quota_usec(order.cpu_milli, period)
        burst = min(quota, order.burst_milli * period // 1000)
        limit, used = CpuLimit(quota, period, burst), self._use.saw(counters, self.stands_for)
        if order.aligned and not idle:
            self.waiting = Waiting(limit, counters.nr_periods, counters.usage_usec, now, ceiling)
            return self._rest(self.waiting, used)
        return self._whole(limit, counters, Used(0, 0) if idle else used)

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
        waiting, used = self.waiting, self._use.saw(counters, self.stands_for)
        if waiting is None:
            return None
        if counters.nr_periods != waiting.nr_periods:
            return self._at_boundary(waiting, counters, used, now)
        if now - waiting.since < PATIENCE_PERIODS * waiting.limit.period_usec / 1e6:
            return self._rest(waiting, used) if self._rest_of != waiting.limit else None
        if counters.usage_usec != waiting.usage_usec:
            self.waiting = replace(waiting, usage_usec=counters.usage_usec, since=now)
            return None
        return self._whole(waiting.limit, counters, used)

    def _at_boundary(
        self, waiting: Waiting, counters: Counters, used: Used | None, now: float
    ) -> CpuLimit | None:
        """The whole limit, or else a part of it until the next boundary, or nothing."""
        assert used is not None  # a period was seen to begin just now
        tried = waiting.tried + 1
        late_usec = LATE_USEC if waiting.ceiling else 2 * LATE_USEC
        late = used.at_most > _worth(waiting.limit, late_usec, LATE_SHARE) and tried < MOST_BOUNDARIES
        # Once for each order: the next boundary has an overrun of its own.
        owes = self._rest_of != waiting.limit and self._use.owed_usec > _worth(
            waiting.limit, LEAST_OWED_USEC, LEAST_OWED_SHARE
        )
        part = self._repaid(waiting, used) if late or owes else None
        # What was the rest of a period is too little for a whole one.
        if part is None and (not late or self._rest_of is not None):
            return self._whole(waiting.limit, counters, used)
        self.waiting = replace(
            waiting, nr_periods=counters.nr_periods, usage_usec=counters.usage_usec, since=now, tried=tried
        )
        return part

    def _whole(self, limit: CpuLimit, counters: Counters, used: Used | None) -> CpuLimit:
        self.waiting = None
        self.extra_usec = _extra_usec(counters.limit, limit, used, self._use.over_usec)
        return limit

    def _rest(self, waiting: Waiting, used: Used | None) -> CpuLimit | None:
        """What its limit leaves of this period; None where that is not known well enough to be of use."""
        held = self.stands_for
        if held is None or used is None:
            return None
        left_usec = _left_usec(held, waiting, used)
        return None if left_usec is None else self._part(waiting.limit, left_usec)

    def _repaid(self, waiting: Waiting, used: Used) -> CpuLimit | None:
        """What is left of a period that just began once what is owed is paid, but at least half of it.

        None for who is not at its ceiling, or does not use all it may: that one would be throttled and
        ask for more, for nothing.
        """
        limit = waiting.limit
        if limit.quota_usec is None or limit.burst_usec or not (waiting.ceiling and self._use.throttled):
            return None
        left_usec = limit.quota_usec - used.at_most - self._use.owed_usec
        return self._part(limit, max(left_usec, limit.quota_usec // 2))

    def _part(self, limit: CpuLimit, part_usec: int) -> CpuLimit:
        self._rest_of, self.extra_usec = limit, 0
        return CpuLimit(part_usec, limit.period_usec)

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


def _left_usec(held: CpuLimit, waiting: Waiting, used: Used) -> int | None:
    """What a write in the middle of a period may hand out, so that it amounts to the waiting limit in all.

    With a burst (K8) what it hands out does not follow from the quotas.
    """
    before, after = held.quota_usec, waiting.limit.quota_usec
    if before is None or after is None or held.burst_usec or waiting.limit.burst_usec:
        return None
    if waiting.ceiling and after > before:
        return None
    left = after - used.at_most
    least = before - used.at_least if after > before else int(LEAST_CUT_REST * after)
    return left if left >= max(least, LEAST_REST_USEC) else None


def _extra_usec(held: CpuLimit, limit: CpuLimit, used: Used | None, over_usec: int) -> int:
    """What a whole quota lets through that is handed out after something of the period was used.

    And after the period before was overrun, by ``over_usec``.  Who had no limit is forgiven.
    """
    if held.quota_usec is None or limit.quota_usec is None:
        return 0
    if used is None or held.burst_usec or limit.burst_usec:
        return limit.quota_usec
    return min(limit.quota_usec, used.at_most + over_usec)


def _worth(limit: CpuLimit, least_usec: int, share: float) -> float:
    """The larger of an amount and a share of the quota: many processors do more of anything in a moment."""
    return max(least_usec, share * (limit.quota_usec or 0))


def _same_share(a: CpuLimit, b: CpuLimit) -> bool:
    if a.quota_usec is None or b.quota_usec is None or a.burst_usec != b.burst_usec:
        return False
    return a.period_usec != b.period_usec and a.quota_usec * b.period_usec == b.quota_usec * a.period_usec
