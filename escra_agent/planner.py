"""What the limit of one container should be, and when it may be written.  Pure.

Every write of a quota refills it (K3) and hides throttling (K4).  So a limit is written only
when it changes; an aligned order waits for the period boundary, where the refill finds
nothing used; and what somebody else wrote is put right once per tick.
"""

from dataclasses import dataclass

from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import quota_usec

# A boundary that does not come within this many periods is not coming: the group sleeps,
# its timer is off (K5), and a refill changes nothing.
PATIENCE_PERIODS = 1.5


@dataclass(frozen=True, slots=True)
class Waiting:
    """An aligned order: to be written when ``nr_periods`` has moved on, or at ``until`` (monotonic s)."""

    limit: CpuLimit
    nr_periods: int
    until: float


class Plan:
    """``wanted`` is the limit we stand for, None while the container is not managed."""

    def __init__(self, held: CpuLimit | None) -> None:
        self.wanted = held
        self.waiting: Waiting | None = None
        self.rev = 0

    def new_controller(self) -> None:
        """Another connection, another order book: what was still waiting is void."""
        self.waiting = None
        self.rev = 0

    def take(
        self, order: CpuOrder, in_force: CpuLimit, nr_periods: int, now: float, *, idle: bool
    ) -> CpuLimit | None:
        """The limit to write now, or None when it must wait or is out of date.

        The period stays what the kernel holds (K7).  ``idle``: nothing was used since the last tick.
        """
        if order.rev <= self.rev:
            return None
        self.rev = order.rev
        period = in_force.period_usec
        quota = quota_usec(order.cpu_milli, period)
        burst = min(quota, order.burst_milli * period // 1000)
        limit = CpuLimit(quota, period, burst)
        self.waiting = None
        if order.aligned and not idle:
            self.waiting = Waiting(limit, nr_periods, now + PATIENCE_PERIODS * period / 1e6)
            return None
        return limit

    def due(self, nr_periods: int, now: float) -> CpuLimit | None:
        """The waiting limit, once its time has come."""
        waiting = self.waiting
        if waiting is None or (nr_periods == waiting.nr_periods and now < waiting.until):
            return None
        self.waiting = None
        return waiting.limit

    def wrote(self, in_force: CpuLimit) -> None:
        """What the kernel held after our write."""
        self.wanted = in_force

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
