from escra_agent.counters import Counters
from escra_agent.perioduse import PeriodUse, Used
from escra_common.messages import CpuLimit

LIMIT = CpuLimit(50_000, 100_000)


def reading(nr_periods: int, usage_usec: int) -> Counters:
    return Counters(0, usage_usec, nr_periods, 0, 0, LIMIT)


def test_nothing_is_known_before_a_period_was_seen_to_begin() -> None:
    use = PeriodUse()
    assert use.saw(reading(7, 1000)) is None
    assert use.saw(reading(7, 9000)) is None


def test_a_period_began_between_two_readings() -> None:
    use = PeriodUse()
    use.saw(reading(7, 1000))
    use.saw(reading(7, 9000))
    assert use.saw(reading(8, 12_000)) == Used(0, 3_000)
    assert use.saw(reading(8, 20_000)) == Used(8_000, 11_000)
    assert use.saw(reading(10, 21_000)) == Used(0, 1_000)
