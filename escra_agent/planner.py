"""What the limit of one container should be, and when it may be written.  Pure.

Every write of a quota refills it (K3) and hides throttling (K4).  So a limit is written only
when it changes; an aligned order waits for the period boundary, where the refill finds
nothing used; and what somebody else wrote is put right once per tick.
"""

from dataclasses import dataclass, replace

from escra_agent.counters import Counters
from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import quota_millicores, quota_usec

# A boundary that does not come within this many periods is not coming: the group sleeps,
# its timer is off (K5), and a refill changes nothing.
PATIENCE_PERIODS = 1.5
# A boundary noticed later than this may have been used for long already: the next one will do,
# but not for ever on a machine that is busy all the time.
PUNCTUAL_S = 0.006
MOST_BOUNDARIES = 4


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
    ``credit`` in millicores is how far it may be raised above that without an order, one time.
    """

    def __init__(self, held: CpuLimit | None) -> None:
        self.wanted = held
        self.waiting: Waiting | None = None
        self.rev = self.obeyed_rev = 0
        self.credit = 0
        # The credit of the order that is not in force yet, and the limit before credit was drawn.
        self.promised = 0
        self._drawn_from: CpuLimit | None = None

    def new_controller(self) -> None:
        """Another connection, another order book: what was still waiting is void."""
        self.waiting = None
        self.rev = self.obeyed_rev = 0
        self.forfeit()

    def forfeit(self) -> None:
        """Who gave the credit need not know that it is still there."""
        self.credit = self.promised = 0
        self._drawn_from = None

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
        limit = CpuLimit(quota, period, burst)
        drawn_from = self._drawn_from
        self.waiting = None
        self.forfeit()
        if limit == drawn_from and self._within(order, period):
            # It was given while the credit before it was drawn: it allows what is in force.
            return self.wanted
        self.promised = order.credit_milli
        if limit == self.wanted:
            return limit
        if order.aligned and not idle:
            self.waiting = Waiting(limit, counters.nr_periods, counters.usage_usec, now, now)
            return None
        return limit

    def refuse(self, order: CpuOrder) -> bool:
        """It is not carried out, and voids those before it; False when it is out of date itself."""
        if order.rev <= self.rev:
            return False
        self.rev = order.rev
        self.waiting = None
        self.forfeit()
        return True

    def due(self, counters: Counters, now: float) -> CpuLimit | None:
        """The waiting limit, once its time has come; ask again every few milliseconds."""
        waiting = self.waiting
        if waiting is None:
            return None
        if counters.nr_periods != waiting.nr_periods:
            late = now - waiting.looked_at > PUNCTUAL_S and waiting.missed + 1 < MOST_BOUNDARIES
            ready, missed = not late, waiting.missed + 1
        else:
            patience_s = PATIENCE_PERIODS * waiting.limit.period_usec / 1e6
            if now - waiting.since < patience_s:
                self.waiting = replace(waiting, looked_at=now)
                return None
            ready, missed = counters.usage_usec == waiting.usage_usec, waiting.missed
        self.waiting = None
        if ready:
            return waiting.limit
        self.waiting = Waiting(waiting.limit, counters.nr_periods, counters.usage_usec, now, now, missed)
        return None

    def wrote(self, in_force: CpuLimit) -> None:
        """What the kernel held after our write."""
        self.wanted = in_force

    def obeyed(self) -> None:
        """The last order was written: what is seen from now on belongs to it, and its credit stands."""
        self.obeyed_rev = self.rev
        self.credit, self.promised = self.promised, 0

    def draw(self) -> CpuLimit | None:
        """The limit to write on credit, which is used up by that; None without.

        An order that still waits allows its limit and its credit already: this carries it out.
        """
        limit, credit = self.wanted, self.credit
        if self.waiting is not None:
            limit, credit = self.waiting.limit, self.promised
        if not credit or self.wanted is None or limit is None or limit.quota_usec is None:
            return None
        milli = quota_millicores(limit.quota_usec, limit.period_usec) + credit
        quota = quota_usec(milli, limit.period_usec)
        if self.wanted.quota_usec is None or self.wanted.quota_usec >= quota:
            return None
        self.waiting = None
        self.forfeit()
        self._drawn_from = limit
        self.obeyed_rev = self.rev
        return CpuLimit(quota, limit.period_usec, limit.burst_usec)

    def _within(self, order: CpuOrder, period_usec: int) -> bool:
        held, most = self.wanted, quota_usec(order.cpu_milli + order.credit_milli, period_usec)
        return held is not None and held.quota_usec is not None and held.quota_usec <= most

    def repair(self, in_force: CpuLimit) -> CpuLimit | None:
        """The limit to write again because somebody else changed it; None when all is well."""
        if self.wanted is None or in_force == self.wanted:
            return None
        if _same_share(in_force, self.wanted):
            # The kernel doubled period and quota by itself (K7): the same limit, in a new period.
            self.wanted = in_force
            return None
        return self.wanted


def _same_share(a: CpuLimit, b: CpuLimit) -> bool:
    if a.quota_usec is None or b.quota_usec is None or a.burst_usec != b.burst_usec:
        return False
    return a.period_usec != b.period_usec and a.quota_usec * b.period_usec == b.quota_usec * a.period_usec
