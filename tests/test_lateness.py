"""The benchmark's own arithmetic: what a late burst explains, and what it does not."""

import pytest

from benchmarks.lateness import late_starts_usec
from benchmarks.numbers import worst_rate
from escra_agent.counters import Counters
from escra_common.messages import CpuLimit

PERIOD_MS, QUOTA_MS, STEP_MS = 100, 50, 2
LIMIT = CpuLimit(QUOTA_MS * 1000, PERIOD_MS * 1000)


def _readings(bursts: list[tuple[int, int]], refilled_at: dict[int, int] | None = None) -> list[Counters]:
    """One reading each 2 ms; ``bursts`` are (begins, ends) in ms, one for each period.

    ``refilled_at``: a second burst in a period begins there, throttled until then, and lasts so long.
    """
    readings, usage, throttled, booked = [], 0, 0, 0
    for at in range(0, len(bursts) * PERIOD_MS + 1, STEP_MS):
        period = min(at // PERIOD_MS, len(bursts) - 1)
        again = any(s <= at < s + length for s, length in (refilled_at or {}).items())
        if again or at % PERIOD_MS == 0:
            booked, throttled = booked + throttled, 0
        readings.append(Counters(at * 1000, usage * 1000, period, period, booked * 1000, LIMIT))
        begins, ends = bursts[period]
        if begins <= at < ends or again:
            usage += STEP_MS
        elif at >= ends:
            throttled += STEP_MS
    return readings


def _explained(readings: list[Counters]) -> tuple[float, float]:
    """The worst window of 1 s over the limit, as it is and without what lateness explains."""
    points = [(r.time_usec / 1e6, r.usage_usec / 1e6) for r in readings]
    late = [usec / 1e6 for usec in late_starts_usec(readings)]
    limit = QUOTA_MS / PERIOD_MS
    return worst_rate(points, 1.0) / limit, worst_rate(points, 1.0, late) / limit


def test_bursts_that_begin_with_their_period_are_not_late() -> None:
    bursts = [(n * PERIOD_MS, n * PERIOD_MS + QUOTA_MS) for n in range(14)]
    as_it_is, explained = _explained(_readings(bursts))
    assert (as_it_is, explained) == pytest.approx((1.0, 1.0))


def test_a_burst_that_others_delayed_explains_what_the_window_from_there_holds() -> None:
    bursts = [(n * PERIOD_MS, n * PERIOD_MS + QUOTA_MS) for n in range(14)]
    bursts[2] = (230, 280)
    as_it_is, explained = _explained(_readings(bursts))
    assert as_it_is == pytest.approx(1.06)
    assert explained == pytest.approx(1.0, abs=0.005)


def test_a_second_quota_within_a_period_is_not_lateness() -> None:
    """A raise or a careless write gives it: it was throttled until then, not late."""
    bursts = [(n * PERIOD_MS, n * PERIOD_MS + QUOTA_MS) for n in range(14)]
    as_it_is, explained = _explained(_readings(bursts, refilled_at={270: 20}))
    assert as_it_is == pytest.approx(1.04)
    assert explained == pytest.approx(1.04, abs=0.005)


def test_a_period_that_went_by_uncounted_makes_nobody_late() -> None:
    """The kernel's timer stops while nothing runs, and goes on with the periods it would have had."""
    bursts = [(n * PERIOD_MS, n * PERIOD_MS + QUOTA_MS) for n in range(14)]
    readings = _readings(bursts)
    skipped = [r if r.nr_periods < 5 else r._replace(nr_periods=r.nr_periods - 2) for r in readings]
    assert late_starts_usec(skipped) == [0] * len(readings)


def test_without_a_period_that_was_seen_to_begin_nothing_is_explained() -> None:
    assert late_starts_usec(_readings([(20, 70)])) == [0] * 51
    assert late_starts_usec([]) == []
