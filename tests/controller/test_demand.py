import pytest

from escra_common.messages import Sample
from escra_controller.demand import Demand


def sample(
    n: int, *, usage: int = 0, throttled: int = 0, lost: int = 0, writes: int = 0, rev: int = 0
) -> Sample:
    return Sample(1, n * 100_000, usage, n, throttled, lost, writes, rev)


def test_rates_are_divided_by_the_agents_own_clock() -> None:
    demand = Demand()
    assert demand.observe(sample(1), 1.0) is None, "one sample is no interval"
    interval = demand.observe(sample(2, usage=50_000), 1.3)
    assert interval is not None
    assert interval.used == pytest.approx(500)
    assert interval.start == pytest.approx(1.2)


def test_the_ratio_is_throttled_periods_by_periods() -> None:
    demand = Demand()
    demand.observe(sample(1), 0.1)
    demand.observe(sample(5, usage=90_000, throttled=2), 0.5)
    assert demand.throttled() == 0.5


def test_throttling_that_our_write_hid_is_seen_by_the_time_lost() -> None:
    demand = Demand()
    demand.observe(sample(1), 0.1)
    demand.observe(sample(2, usage=9_000, lost=40_000, writes=1, rev=7), 0.2)
    assert demand.throttled() == 1.0


def test_but_not_when_that_write_was_the_answer() -> None:
    demand = Demand()
    demand.observe(sample(1), 0.1)
    demand.observe(sample(2, usage=9_000, lost=40_000, writes=1, rev=7), 0.2, raised_by=7)
    assert demand.throttled() == 0.0


def test_nor_when_nobody_was_left_to_be_throttled() -> None:
    """Its processes were killed while throttled; the write that takes it to its floor un-throttles it."""
    demand = Demand()
    demand.observe(sample(1, usage=9_000), 0.1)
    demand.observe(sample(2, usage=9_000, lost=900_000, writes=1, rev=7), 0.2)
    assert demand.throttled() == 0.0


def test_counters_that_go_back_start_anew() -> None:
    demand = Demand()
    demand.observe(sample(5, usage=90_000), 0.5)
    assert demand.observe(sample(6, usage=1_000), 0.6) is None
    assert demand.observe(sample(7, usage=2_000), 0.7) is not None


def test_intervals_say_what_was_lost_and_since_when() -> None:
    demand = Demand()
    demand.observe(sample(1), 0.1)
    demand.observe(sample(2, throttled=1, lost=40_000), 0.2)
    demand.observe(sample(3, throttled=1, lost=40_000), 0.3)
    first, second = demand.ended_after(0.0)
    assert (first.events, first.lost_usec) == (1, 40_000)
    assert (second.events, second.lost_usec) == (0, 0)
    assert demand.ended_after(0.2) == [second]
    assert demand.ended_after(0.3) == []


def test_who_is_dry_will_be_throttled_until_a_tick_says_otherwise() -> None:
    demand = Demand(alarms=True)
    alarm = Sample(1, 230_000, 30_000, 2, 0, 0, 0, 0, dry=True)
    assert demand.observe(alarm, 0.23) is None, "nothing is known to compare it with"
    demand.observe(sample(1), 0.1)
    seen = demand.observe(sample(2, usage=5_000), 0.2)
    assert demand.observe(alarm, 0.23) is seen, "it is no interval"
    assert (demand.dry, demand.throttled(), demand.mean_throttled(2)) == (True, 1.0, 0.5)
    demand.observe(sample(3, usage=60_000), 0.3)
    assert (demand.dry, demand.throttled(), demand.used()) == (False, 0.0, 550.0)


def test_throttling_before_an_alarm_that_was_answered_counts_no_more() -> None:
    for answered in (True, False):
        demand = Demand(alarms=True)
        demand.observe(sample(1), 0.1)
        demand.observe(sample(2, usage=30_000), 0.2)
        demand.observe(Sample(1, 310_000, 60_000, 3, 1, 40_000, 0, 0, dry=True), 0.31)
        after = Sample(1, 330_000, 70_000, 3, 1, 40_000, 1, 7 if answered else 0)
        demand.observe(after, 0.33, raised_by=7 if answered else 0)
        assert demand.throttled() == (0.0 if answered else 1.0)


def test_rules_that_have_no_use_for_alarms_hear_none() -> None:
    demand = Demand()
    demand.observe(sample(1), 0.1)
    demand.observe(sample(2, usage=30_000), 0.2)
    assert demand.observe(Sample(1, 210_000, 30_000, 2, 0, 0, 0, 0, dry=True), 0.21) is None
    assert not demand.dry
