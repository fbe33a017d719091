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
from escra_agent.perioduse import TIMER_LATE_USEC, Period, PeriodUse, Used
from escra_agent.quotas import LEAST_REST_USEC, extra_usec, left_usec, ordered, same_share, told_apart, worth
from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import MIN_QUOTA_USEC, quota_millicores

# A boundary that does not come within this many periods is not coming: the group sleeps,
# its timer is off (K5), and a refill changes nothing.
PATIENCE_PERIODS = 1.5
# A period of which more than this was used before its boundary was noticed (below the ceiling: twice that) is
# left out, or only what is left of it is handed out; but not for ever on a machine that is busy all the time.
LATE_USEC, LATE_SHARE = 3_000, 0.05
MOST_BOUNDARIES = 4
# What is owed is taken off when it is more than what most writes forgive, which is a part of a timer tick.
LEAST_OWED_USEC, LEAST_OWED_SHARE = 2_000, 0.1
# So long before a period is thought to end its end is looked for; and so often when it did not come then, or
# when nothing is known.
EARLY_USEC = 2_000
SELDOM_USEC = 2_000
# Who lends keeps what it would use, as far as that can be known, and this share of its quota.
KEPT_SHARE = 0.1
# And who takes gets so many times what it would use: another alarm within the period costs more.
MORE = 1.25
# After a loan what was used too much is taken off the next periods, when it is more than this.
LEAST_DEBT_USEC, LEAST_DEBT_SHARE = 500, 0.1
MOST_REPAYMENTS = 10


@dataclass(frozen=True, slots=True)
class Waiting:
    """An aligned order: ``limit`` is to be written when ``nr_periods`` has moved on.

    ``usage_usec`` was read at ``since`` (monotonic s).  ``ceiling``: see ``take``.  ``tried`` is how many
    boundaries went by.  ``lent``: nothing was ordered, see ``move``.
    """

    limit: CpuLimit
    nr_periods: int
    usage_usec: int
    since: float
    ceiling: bool
    tried: int = 0
    lent: bool = False


class Plan:
    """``wanted`` is the limit we stand for, None while the container is not managed.

    ``rev`` is the revision of the last order, ``obeyed_rev`` that of the last one that was written.
    """

    def __init__(self, held: CpuLimit | None) -> None:
        self.wanted = held
        self.waiting: Waiting | None = None
        self.rev = self.obeyed_rev = 0
        # An order that the last one left to us, to be carried out when that will not do.
        self.reserve: CpuOrder | None = None
        # What the write that was asked for last lets through beyond its limit, at most.
        self.extra_usec = 0
        self._use = PeriodUse()
        # The limit of which ``wanted`` is what it leaves for the rest of the period.
        self._rest_of: CpuLimit | None = None
        # When to look whether the period is over for which something waits (monotonic us), and when it ends,
        # as far as is known.
        self.look_usec = self._ends_usec = 0

    @property
    def stands_for(self) -> CpuLimit | None:
        """The limit of this period; part of it may have been used before what is in force was written."""
        return self._rest_of or self.wanted

    @property
    def whole(self) -> CpuLimit | None:
        """What belongs in the place of the limit that is to be written now, when this period is over."""
        return None if self.waiting is None else self._rest_of

    @property
    def under_way(self) -> bool:
        """Whether there is an order of which nothing is in force yet."""
        return self.waiting is not None and self.waiting.limit != self.stands_for

    def saw(self, counters: Counters) -> None:
        """A reading, whatever it was for."""
        self._use.saw(counters, self.stands_for)

    def period(self, counters: Counters) -> Period | None:
        """What is known of the period in which the last reading was made, which this is."""
        return self._use.period(counters)

    def new_controller(self) -> None:
        """Another connection, another order book: orders that were still waiting are void."""
        self._void()
        self.rev = self.obeyed_rev = 0

    def left_over(self) -> CpuLimit | None:
        """What to write when the rest of a period is in force and nothing waits any more for its end."""
        return self._rest_of if self.waiting is None else None

    def _void(self) -> None:
        """Carry out no order that waits.  The rest of a period is made whole at its end all the same, and
        not before: that would hand out once more what was used of it.
        """
        self.reserve, waiting = None, self.waiting
        if waiting is not None and self._rest_of is not None:
            self.waiting = replace(waiting, limit=self._rest_of, ceiling=False, lent=True)
        else:
            self.waiting = None

    def take(
        self,
        order: CpuOrder,
        counters: Counters,
        now: float,
        headroom_milli: int = 0,
        *,
        idle: bool,
        ceiling: bool = False,
    ) -> CpuLimit | None:
        """The limit to write now, or None when it must wait or is out of date.

        The period stays what the kernel holds (K7).  ``idle``: nothing was used since the last tick.
        ``ceiling``: the container may never have more than this, or hardly.
        ``headroom_milli``: how much of the order's may be used.
        """
        if order.rev <= self.rev:
            return None
        self.rev = order.rev
        self._keep(order, headroom_milli)
        limit, used = ordered(order, counters), self._use.saw(counters, self.stands_for)
        if order.aligned and not idle:
            waiting = Waiting(limit, counters.nr_periods, counters.usage_usec, now, ceiling)
            self._wait(waiting)
            return self._rest(waiting, used)
        if idle:
            # What was lent in this period is handed out once more.
            used = Used(0, max(0, -self._use.moved_usec))
        self.waiting, self._use.moved_usec = None, 0
        return self._whole(limit, counters, used)

    def stays(self, order: CpuOrder, headroom_milli: int = 0) -> bool:
        """Whether it asks for the limit that is in force: then it is taken, and nothing is to be written."""
        held = self.stands_for
        if order.rev <= self.rev or held is None or held.quota_usec is None:
            return False
        if self.under_way or order.burst_milli or held.burst_usec:
            return False
        if quota_millicores(held.quota_usec, held.period_usec) != order.cpu_milli:
            return False
        self.rev = order.rev
        self._keep(order, headroom_milli)
        return True

    def draw(self, counters: Counters, now: float, *, ceiling: bool = False) -> CpuLimit | None:
        """Take the order in reserve, if there is one and no other waits: what ``take`` would say to it."""
        reserve = self.reserve
        if reserve is None or self.waiting is not None or self.stands_for is None:
            return None
        return self.take(reserve, counters, now, idle=False, ceiling=ceiling)

    @property
    def may_lend(self) -> bool:
        """Whether it is managed and did not have to ask others itself in this period."""
        return self.wanted is not None and self._use.moved_usec <= 0

    def spare_usec(self, counters: Counters, rate: float) -> int:
        """What is left of this period by what it will use, at ``rate`` (cores) or as lately; 0 if unknown."""
        held, used = self.stands_for, self._use.saw(counters, self.stands_for)
        if held is None or held.quota_usec is None or held.burst_usec or used is None:
            return 0
        if self._is_due(counters):
            return 0
        ends_usec = self._use.ends_usec(held.period_usec)
        left_usec = ends_usec - counters.time_usec if ends_usec else held.period_usec
        if left_usec <= 0:
            return 0
        expected = max(rate, self._use.lately) * left_usec
        kept = max(KEPT_SHARE * held.quota_usec + expected, MIN_QUOTA_USEC)
        return max(0, int(held.quota_usec - used.at_most - self._use.owed_usec - kept))

    def lacks_usec(self, counters: Counters, rate: float, most_usec: float) -> int:
        """What it would use of this period beyond what it has, at ``rate`` (cores) or as lately.

        ``most_usec`` is what it may use of a period at most.
        """
        held, period = self.stands_for, self._use.period(counters)
        if held is None or held.quota_usec is None or held.burst_usec or period is None:
            return 0
        if self._is_due(counters):
            return 0
        left_usec = period.began_usec + held.period_usec - counters.time_usec
        lacks = period.used_usec + MORE * max(rate, self._use.lately) * left_usec - held.quota_usec
        # Its file never says more than its limit.
        return max(0, int(min(lacks, period.used_usec, most_usec - held.quota_usec - self._use.moved_usec)))

    def _is_due(self, counters: Counters) -> bool:
        """What waits is to be written first."""
        return self.waiting is not None and counters.nr_periods != self.waiting.nr_periods

    def move(self, usec: int, counters: Counters, now: float) -> CpuLimit | None:
        """Take ``usec`` of this period from others, or leave so much to them; what to write for its rest.

        None where that is too little to be written.  At the end of the period it has its limit again.
        """
        held, use = self.stands_for, self._use
        assert held is not None
        assert held.quota_usec is not None
        use.moved_usec += usec
        used = use.saw(counters, held)
        assert used is not None
        left = held.quota_usec - used.at_most - use.owed_usec
        if usec > 0 and left < MIN_QUOTA_USEC:
            use.moved_usec -= usec
            return None
        if self.waiting is None:
            nr_periods, usage_usec = counters.nr_periods, counters.usage_usec
            self._wait(Waiting(held, nr_periods, usage_usec, now, ceiling=False, lent=True))
        # What is in force already would not be written, and hand out nothing.
        most = held.quota_usec - (counters.limit.quota_usec == held.quota_usec)
        return self._part(held, max(MIN_QUOTA_USEC, min(most, left)))

    def refuse(self, order: CpuOrder) -> bool:
        """It is not carried out, and voids those before it; False when it is out of date itself."""
        if order.rev <= self.rev:
            return False
        self.rev = order.rev
        self._void()
        return True

    def _keep(self, order: CpuOrder, headroom_milli: int) -> None:
        more = CpuOrder(order.key, order.rev + 1, order.cpu_milli + headroom_milli, aligned=True)
        self.reserve = more if headroom_milli else None

    def _wait(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self._ends_usec = self._use.ends_usec(waiting.limit.period_usec)
        self.look_usec = self._ends_usec - EARLY_USEC

    def due(self, counters: Counters, now: float) -> CpuLimit | None:
        """The waiting limit, once its time has come; to be asked again at ``look_usec``.

        While it goes on waiting, it is but what it leaves for the rest of this period.
        """
        waiting, used = self.waiting, self._use.saw(counters, self.stands_for)
        if waiting is None:
            return None
        if counters.nr_periods != waiting.nr_periods:
            return self._at_boundary(waiting, counters, used, now)
        if counters.time_usec > self._ends_usec + TIMER_LATE_USEC:
            self.look_usec = counters.time_usec + SELDOM_USEC
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
        if waiting.lent:
            return self._after_loan(waiting, counters, used, now)
        tried = waiting.tried + 1
        late_usec = LATE_USEC if waiting.ceiling else 2 * LATE_USEC
        late = used.at_most > worth(waiting.limit, late_usec, LATE_SHARE) and tried < MOST_BOUNDARIES
        # Once for each order: the next boundary has an overrun of its own.
        owes = self._rest_of != waiting.limit and self._use.owed_usec > worth(
            waiting.limit, LEAST_OWED_USEC, LEAST_OWED_SHARE
        )
        part = self._repaid(waiting, used) if late or owes else None
        # What was the rest of a period is too little for a whole one.
        if part is None and (not late or self._rest_of is not None):
            return self._whole(waiting.limit, counters, used)
        self._wait_on(waiting, counters, now, tried)
        return part

    def _after_loan(self, waiting: Waiting, counters: Counters, used: Used, now: float) -> CpuLimit | None:
        """The whole limit, once nothing is owed any more.

        A write forgives what was used too much, up to a timer tick on each processor, which of a small quota
        is much.  So until then it has a limit less what it owes; or, where that is little, what is in force
        already, of which the kernel takes it off itself.
        """
        limit, tried = waiting.limit, waiting.tried + 1
        assert limit.quota_usec is not None
        late = used.at_most > worth(limit, LATE_USEC, LATE_SHARE)
        debt = self._use.owed_usec + (used.at_most if late else 0)
        if debt <= worth(limit, LEAST_DEBT_USEC, LEAST_DEBT_SHARE) or tried == MOST_REPAYMENTS:
            return self._whole(limit, counters, used)
        self._wait_on(waiting, counters, now, tried)
        left = limit.quota_usec - debt
        return self._part(limit, left) if left >= max(LEAST_REST_USEC, limit.quota_usec // 4) else None

    def _wait_on(self, waiting: Waiting, counters: Counters, now: float, tried: int) -> None:
        nr_periods, usage_usec = counters.nr_periods, counters.usage_usec
        self._wait(replace(waiting, nr_periods=nr_periods, usage_usec=usage_usec, since=now, tried=tried))

    def _whole(self, limit: CpuLimit, counters: Counters, used: Used | None) -> CpuLimit:
        # What a write that nobody ordered lets through is owed, and comes off the next loan.
        lent, self.waiting = self.waiting is not None and self.waiting.lent, None
        over_usec = self._use.over_usec
        self.extra_usec = 0 if lent else extra_usec(counters.limit, limit, used, over_usec)
        if lent:
            self._use.moved_usec = 0  # also where no period was seen to end, as nobody worked
        return limit

    def _rest(self, waiting: Waiting, used: Used | None) -> CpuLimit | None:
        """What its limit leaves of this period; None where that is not known well enough to be of use."""
        held = self.stands_for
        if held is None or used is None:
            return None
        left = left_usec(held, waiting.limit, used, ceiling=waiting.ceiling)
        return None if left is None else self._part(waiting.limit, left)

    def _repaid(self, waiting: Waiting, used: Used) -> CpuLimit | None:
        """What is left of a period that just began once what is owed is paid, but at least half of it.

        None for who is not at its ceiling, or does not use all it may: that one would be throttled and
        ask for more, for nothing.
        """
        limit = waiting.limit
        if limit.quota_usec is None or limit.burst_usec or not (waiting.ceiling and self._use.throttled):
            return None
        left = limit.quota_usec - used.at_most - self._use.owed_usec
        return self._part(limit, max(left, limit.quota_usec // 2))

    def _part(self, limit: CpuLimit, part_usec: int) -> CpuLimit:
        self._rest_of, self.extra_usec = limit, 0
        # Of a period in which others lent to it there may be more left than a whole one.
        return CpuLimit(min(part_usec, limit.quota_usec or part_usec), limit.period_usec)

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
        if same_share(in_force, self.wanted):
            # The kernel doubled period and quota by itself (K7): the same limit, in a new period.
            self.wanted = in_force
            return None
        return ours
