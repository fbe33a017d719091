"""What the limit of one container should be, and when it may be written.  Pure.

Every write of a quota refills it (K3) and hides throttling (K4).  So a limit is written only
when it changes; an aligned order waits for the period boundary, where the refill finds
nothing used; and what somebody else wrote is put right once per tick.
"""

from dataclasses import dataclass, replace

from escra_agent.counters import Counters
from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import MIN_QUOTA_USEC, quota_usec

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
    """

    def __init__(self, held: CpuLimit | None) -> None:
        self.wanted = held
        self.waiting: Waiting | None = None
        self.rev = self.obeyed_rev = 0

    def new_controller(self) -> None:
        """Another connection, another order book: what was still waiting is void."""
        self.waiting = None
        self.rev = self.obeyed_rev = 0

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
        self.waiting = None
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


def _same_share(a: CpuLimit, b: CpuLimit) -> bool:
    if a.quota_usec is None or b.quota_usec is None or a.burst_usec != b.burst_usec:
        return False
    return a.period_usec != b.period_usec and a.quota_usec * b.period_usec == b.quota_usec * a.period_usec
