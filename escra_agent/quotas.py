"""Quotas as they are ordered and written, and what a write of one lets through (K3).  Pure."""

from escra_agent.counters import Counters
from escra_agent.perioduse import Used
from escra_common.messages import CpuLimit, CpuOrder
from escra_common.units import MIN_QUOTA_USEC, quota_usec

# The rest of a period is not worth a write when it is less than this, or, of a cut, than this share of
# the new quota: it is not to be throttled by a cut that could wait.
LEAST_REST_USEC = 2_000
LEAST_CUT_REST = 0.5


def ordered(order: CpuOrder, counters: Counters) -> CpuLimit:
    """In the period that the kernel holds (K7)."""
    period = counters.limit.period_usec
    quota = quota_usec(order.cpu_milli, period)
    return CpuLimit(quota, period, min(quota, order.burst_milli * period // 1000))


def told_apart(limit: CpuLimit, original: CpuLimit) -> CpuLimit:
    """A limit of ours as it is written: never the original itself, but a microsecond below it.

    By that an agent that was killed knows in its next life that the container is managed, and a controller
    that it is counted.  The least quota there is (K1) cannot be lowered; it is worth 1 % of a processor.
    """
    quota = limit.quota_usec
    if limit != original or quota is None or quota <= MIN_QUOTA_USEC:
        return limit
    return CpuLimit(quota - 1, limit.period_usec, min(limit.burst_usec, quota - 1))


def left_usec(held: CpuLimit, limit: CpuLimit, used: Used, *, ceiling: bool) -> int | None:
    """What a write in the middle of a period may hand out, so that it amounts to ``limit`` in all.

    With a burst (K8) what it hands out does not follow from the quotas.
    """
    before, after = held.quota_usec, limit.quota_usec
    if before is None or after is None or held.burst_usec or limit.burst_usec:
        return None
    if ceiling and after > before:
        return None
    left = after - used.at_most
    least = before - used.at_least if after > before else int(LEAST_CUT_REST * after)
    return left if left >= max(least, LEAST_REST_USEC) else None


def extra_usec(held: CpuLimit, limit: CpuLimit, used: Used | None, over_usec: int) -> int:
    """What a whole quota lets through that is handed out after something of the period was used.

    And after the period before was overrun, by ``over_usec``.  Who had no limit is forgiven.
    """
    if held.quota_usec is None or limit.quota_usec is None:
        return 0
    if used is None or held.burst_usec or limit.burst_usec:
        return limit.quota_usec
    return min(limit.quota_usec, used.at_most + over_usec)


def worth(limit: CpuLimit, least_usec: int, share: float) -> float:
    """The larger of an amount and a share of the quota: many processors do more of anything in a moment."""
    return max(least_usec, share * (limit.quota_usec or 0))


def same_share(a: CpuLimit, b: CpuLimit) -> bool:
    if a.quota_usec is None or b.quota_usec is None or a.burst_usec != b.burst_usec:
        return False
    return a.period_usec != b.period_usec and a.quota_usec * b.period_usec == b.quota_usec * a.period_usec
