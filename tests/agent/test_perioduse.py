from escra_agent.counters import Counters
from escra_agent.perioduse import PeriodUse, Used
from escra_common.messages import CpuLimit

LIMIT = CpuLimit(50_000, 100_000)


def reading(nr_periods: int, usage_usec: int, nr_throttled: int = 0) -> Counters:
    return Counters(0, usage_usec, nr_periods, nr_throttled, 0, LIMIT)


def test_nothing_is_known_before_a_period_was_seen_to_begin() -> None:
    use = PeriodUse()
    assert use.saw(reading(7, 1000), LIMIT) is None
    assert use.saw(reading(7, 9000), LIMIT) is None


def test_a_period_began_between_two_readings() -> None:
    use = PeriodUse()
    use.saw(reading(7, 1000), LIMIT)
    use.saw(reading(7, 9000), LIMIT)
    assert use.saw(reading(8, 12_000), LIMIT) == Used(0, 3_000)
    assert use.saw(reading(8, 20_000), LIMIT) == Used(8_000, 11_000)
    assert use.saw(reading(10, 21_000), LIMIT) == Used(0, 1_000)


def seen(*usages_usec: int, limit: CpuLimit | None = LIMIT) -> PeriodUse:
    """Throttled at the end of every period, with so much used in all by then."""
    use = PeriodUse()
    for n, usage_usec in enumerate((0, *usages_usec)):
        use.saw(reading(n, usage_usec, n), limit)
        use.saw(reading(n + 1, usage_usec, n + 1), limit)
    return use


def test_who_ran_past_the_end_of_its_quota_owes_that() -> None:
    use = seen(50_000, 103_000)
    assert (use.over_usec, use.owed_usec) == (3_000, 3_000)


def test_what_the_kernel_took_back_is_not_owed() -> None:
    use = seen(53_000, 100_000)
    assert (use.over_usec, use.owed_usec) == (0, 0)


def test_what_is_owed_adds_up_and_is_forgotten_within_a_second() -> None:
    assert seen(53_000, 106_000).owed_usec == 3_000 * 9 // 10 + 3_000
    assert seen(53_000, *range(103_000, 1_600_000, 50_000)).owed_usec < 300


def test_only_what_was_surely_used_in_a_period_is_owed() -> None:
    """What is read after it began may be of the one before, unless that ended throttled."""
    use = PeriodUse()
    for n, usage_usec in ((0, 0), (1, 30_000), (1, 80_000), (2, 82_000)):
        use.saw(reading(n, usage_usec), LIMIT)
    assert use.owed_usec == 0, "50 ms of the second period were seen"
    use = PeriodUse()
    for n, usage_usec in ((0, 0), (1, 30_000), (1, 80_001), (2, 82_000)):
        use.saw(reading(n, usage_usec), LIMIT)
    assert use.owed_usec == 1


def test_nothing_is_owed_without_a_limit_or_over_periods_nobody_saw() -> None:
    assert seen(90_000, 190_000, limit=None).owed_usec == 0
    assert seen(90_000, 190_000, limit=CpuLimit(50_000, 100_000, 10_000)).owed_usec == 0
    use = seen(90_000)
    assert use.owed_usec == 40_000
    use.saw(reading(4, 190_000, 4), LIMIT)
    assert use.owed_usec == 0
