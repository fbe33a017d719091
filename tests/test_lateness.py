"""The benchmark's own arithmetic: what a late burst explains, and what it does not."""

import pytest

from benchmarks.lateness import Beginnings, late_usec
from benchmarks.numbers import worst_rate
from escra_agent.counters import Counters
from escra_common.messages import CpuLimit

PERIOD_MS, QUOTA_MS = 100, 50
LIMIT = CpuLimit(QUOTA_MS * 1000, PERIOD_MS * 1000)
ON_TIME = [(n * PERIOD_MS, n * PERIOD_MS + QUOTA_MS) for n in range(14)]


def _readings(
    bursts: list[tuple[int, int]], refilled_at: dict[int, int] | None = None, step_ms: int = 2
) -> list[Counters]:
    """``bursts`` are (begins, ends) in ms, one for each period.

    ``refilled_at``: a second burst in a period begins there, throttled until then, and lasts so long.
    """
    readings, usage, throttled, booked = [], 0, 0, 0
    for at in range(len(bursts) * PERIOD_MS + 1):
        period = min(at // PERIOD_MS, len(bursts) - 1)
        again = any(s <= at < s + length for s, length in (refilled_at or {}).items())
        if again or at % PERIOD_MS == 0:
            booked, throttled = booked + throttled, 0
        if at % step_ms == 0:
            readings.append(Counters(at * 1000, usage * 1000, period, period, booked * 1000, LIMIT))
        begins, ends = bursts[period]
        if begins <= at < ends or again:
            usage += 1
        elif at >= ends:
            throttled += 1
    return readings


def _all_late(readings: list[Counters]) -> list[float]:
    beginnings = Beginnings(readings)
    return [late_usec(readings, index, beginnings) / 1e6 for index in range(len(readings))]


def _explained(readings: list[Counters]) -> tuple[float, float]:
    """The worst window of 1 s over the limit, as it is and without what lateness explains."""
    points = [(r.time_usec / 1e6, r.usage_usec / 1e6) for r in readings]
    limit = QUOTA_MS / PERIOD_MS
    return worst_rate(points, 1.0) / limit, worst_rate(points, 1.0, _all_late(readings)) / limit


def test_bursts_that_begin_with_their_period_are_not_late() -> None:
    readings = _readings(ON_TIME)
    assert _explained(readings) == pytest.approx((1.0, 1.0))
    assert max(_all_late(readings)) == 0


@pytest.mark.parametrize("step_ms", [2, 10])
def test_a_burst_that_others_delayed_explains_what_the_window_from_there_holds(step_ms: int) -> None:
    bursts = [*ON_TIME]
    bursts[2] = (230, 280)
    as_it_is, explained = _explained(_readings(bursts, step_ms=step_ms))
    assert as_it_is == pytest.approx(1.06)
    assert explained == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("step_ms", [2, 10])
def test_one_who_rested_explains_a_whole_quota_and_not_more(step_ms: int) -> None:
    bursts = [*ON_TIME]
    bursts[2] = (250, 300)
    readings = _readings(bursts, step_ms=step_ms)
    as_it_is, explained = _explained(readings)
    assert as_it_is == pytest.approx(1.1)
    assert explained == pytest.approx(1.0, abs=0.005)
    assert max(_all_late(readings)) == QUOTA_MS / 1000


@pytest.mark.parametrize("step_ms", [2, 10])
def test_a_second_quota_within_a_period_is_not_lateness(step_ms: int) -> None:
    """A raise or a careless write gives it: it was throttled until then, not late."""
    as_it_is, explained = _explained(_readings(ON_TIME, refilled_at={270: 20}, step_ms=step_ms))
    assert as_it_is == pytest.approx(1.04)
    assert explained == pytest.approx(1.04, abs=0.005)


@pytest.mark.parametrize("step_ms", [2, 10])
def test_a_quota_that_is_raised_within_a_period_is_not_lateness(step_ms: int) -> None:
    """From 20 to 50 ms: throttled from 220 until 250."""
    bursts = [*ON_TIME]
    bursts[2] = (200, 220)
    readings = _readings(bursts, refilled_at={250: 30}, step_ms=step_ms)
    low = CpuLimit(20_000, PERIOD_MS * 1000)
    raised = [r._replace(limit=low) if 200_000 < r.time_usec <= 250_000 else r for r in readings]
    as_it_is, explained = _explained(raised)
    assert as_it_is == pytest.approx(1.06)
    assert explained == pytest.approx(1.06, abs=0.005)


def test_a_burst_after_which_nothing_comes_late_explains_nothing() -> None:
    """Idle in one period, which a window from its middle does not hold either."""
    bursts = [*ON_TIME]
    bursts[2] = (200, 200)
    assert max(_all_late(_readings(bursts, step_ms=10))) == 0


def test_a_period_that_went_by_uncounted_makes_nobody_late() -> None:
    """The kernel's timer stops while nothing runs, and goes on with the periods it would have had."""
    readings = _readings(ON_TIME)
    skipped = [r if r.nr_periods < 5 else r._replace(nr_periods=r.nr_periods - 2) for r in readings]
    assert _all_late(skipped) == [0] * len(readings)


def test_when_periods_begin_is_known_by_the_promptest_look() -> None:
    readings = _readings(ON_TIME, step_ms=1)
    seen = [r for r in readings if r.time_usec % 13_000 == 0 and r.time_usec % 100_000 > 1000]
    began_usec = Beginnings(seen).last(readings[750])
    assert began_usec == 702_000


def test_without_a_period_that_was_seen_to_begin_nothing_is_explained() -> None:
    assert _all_late(_readings([(20, 70)])) == [0] * 51
    assert Beginnings([]).last(_readings([(20, 70)])[0]) is None
