from hypothesis import given
from hypothesis import strategies as st

from escra_agent.counters import Counters
from escra_agent.foresight import FAR_USEC, NEAR_USEC, SAY_AGAIN_USEC, Foresight
from escra_agent.perioduse import PeriodUse
from escra_common.messages import CpuLimit

PERIOD = 100_000


def reading(at_usec: int, used_usec: int, quota: int = 20_000, throttled: int = 0) -> Counters:
    return Counters(at_usec, used_usec, at_usec // PERIOD, throttled, 0, CpuLimit(quota, PERIOD))


class Watched:
    """As the lookout does it."""

    def __init__(self) -> None:
        self.foresight, self._use = Foresight(), PeriodUse()

    def look(self, now: Counters) -> bool:
        self._use.saw(now, now.limit)
        return self.foresight.look(now, self._use.period(now))


def told_at(cores: float, begins_usec: int, quota: int = 20_000, ends_usec: int = 10**9) -> int | None:
    """When work of so many cores, from ``begins_usec`` on, is foreseen not to have enough; None is never.

    As in the kernel: the quota of a period is all it gets.
    """
    watched, used, throttled, at = Watched(), 0.0, 0, 0
    due, period, in_period, dry = 0, 0, 0.0, False
    while at < 6 * PERIOD:
        if at // PERIOD != period:
            throttled += dry
            period, in_period, dry = at // PERIOD, 0.0, False
        if at >= due:
            if watched.look(reading(at, int(used), quota, throttled)):
                return at
            due = watched.foresight.due_usec
        wants = 500 * cores if begins_usec <= at < ends_usec else 0.0
        gets = min(wants, quota - in_period)
        dry = dry or gets < wants
        used, in_period, at = used + gets, in_period + gets, at + 500
    return None


@given(st.integers(PERIOD, 3 * PERIOD - 1))
def test_a_burst_is_foreseen_soon_after_it_has_used_its_quota(begins: int) -> None:
    """20 ms of quota are gone 20 ms after the burst began, or what was left of the period gives them anew."""
    at = told_at(1.0, begins)
    assert at is not None
    dry = begins + 20_000
    assert at <= dry + FAR_USEC + NEAR_USEC


@given(st.floats(0.01, 0.19), st.integers(0, PERIOD))
def test_who_has_enough_is_left_alone(cores: float, begins: int) -> None:
    assert told_at(cores, begins) is None


def test_a_short_burst_within_the_quota_is_none() -> None:
    assert told_at(1.0, PERIOD + 30_000, quota=50_000, ends_usec=PERIOD + 55_000) is None


def test_a_period_cut_short_is_seen_at_its_end() -> None:
    watched = Watched()
    assert not watched.look(reading(95_000, 20_000))
    assert watched.look(reading(105_000, 20_500, throttled=1))


def test_of_a_quota_it_is_said_twice_and_again_after_a_while() -> None:
    watched = Watched()
    watched.look(reading(99_000, 0))
    watched.look(reading(105_000, 0))
    assert watched.look(reading(125_000, 20_000))
    assert not watched.look(reading(135_000, 20_000)), "the same period"
    assert watched.look(reading(145_000, 35_000, quota=30_000)), "the answer was too little"
    times = range(155_000, 1_100_000, 10_000)
    used = [(at // PERIOD - 1) * 30_000 + min(at % PERIOD, 30_000) for at in times]
    readings = [reading(at, 5_000 + use, 30_000, at // PERIOD) for at, use in zip(times, used, strict=True)]
    second, third, *_ = [each.time_usec for each in readings if watched.look(each)]
    assert second < 3 * PERIOD + 10_000
    assert third >= second + SAY_AGAIN_USEC


def test_who_is_far_from_its_quota_is_looked_at_half_as_often() -> None:
    watched = Watched()
    watched.look(reading(99_000, 0))
    watched.look(reading(110_000, 0))
    watched.look(reading(120_000, 100))
    assert watched.foresight.due_usec == 120_000 + FAR_USEC
    watched.look(reading(140_000, 12_000))
    assert watched.foresight.due_usec == 140_000 + NEAR_USEC


def test_what_was_used_before_the_period_began_is_none_of_its_use() -> None:
    """A burst in the last moments of a period, and one that uses the next quota up in its middle."""
    watched = Watched()
    for at in range(0, 4 * PERIOD, 10_300):
        watched.look(reading(at, 0))
    busy_from, rest_from = 4 * PERIOD - 12_000, 4 * PERIOD + 20_000
    times = range(4 * PERIOD - 9_000, 4 * PERIOD + 80_000, 10_300)
    told = [at for at in times if watched.look(reading(at, min(at, rest_from) - busy_from))]
    assert told[0] <= rest_from + 10_300, "not only when the period is over"


def test_who_ran_dry_late_in_its_period_is_looked_at_when_the_next_began() -> None:
    watched = Watched()
    for at in range(0, 3 * PERIOD - 10_000, 10_300):
        watched.look(reading(at, 0))
    assert not watched.look(reading(3 * PERIOD - 5_000, 20_000))
    assert 3 * PERIOD <= watched.foresight.due_usec <= 3 * PERIOD + 2_000
