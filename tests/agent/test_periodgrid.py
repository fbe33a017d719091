from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from escra_agent.counters import Counters
from escra_agent.periodgrid import PeriodGrid
from escra_common.messages import CpuLimit

PERIOD = 100_000


def reading(at_usec: int, phase_usec: int, period: int = PERIOD) -> Counters:
    return Counters(at_usec, 0, (at_usec - phase_usec) // period, 0, 0, CpuLimit(20_000, period))


def seen(times: list[int], phase_usec: int, grid: PeriodGrid | None = None) -> PeriodGrid:
    grid = grid or PeriodGrid()
    readings = [reading(at, phase_usec) for at in times]
    for before, now in pairwise(readings):
        if before.nr_periods != now.nr_periods:
            grid.saw(before, now)
    return grid


def error_usec(grid: PeriodGrid, at_usec: int, phase_usec: int) -> int:
    began = grid.began_usec(at_usec)
    assert began is not None
    assert at_usec - PERIOD < began <= at_usec
    off = (began - phase_usec) % PERIOD
    return min(off, PERIOD - off)


def test_nothing_is_known_before_a_beginning_was_seen() -> None:
    assert seen([10, 20], 0).began_usec(20) is None


@given(st.integers(0, PERIOD - 1), st.lists(st.integers(8_000, 22_000), min_size=60, max_size=60))
def test_many_readings_leave_little(phase: int, gaps: list[int]) -> None:
    times = [0]
    for gap in gaps:
        times.append(times[-1] + gap)
    assert error_usec(seen(times, phase), times[-1], phase) <= 11_000
    # Regular gaps that are no divisor of the period let beginnings fall everywhere between two readings.
    regular = list(range(0, 4_000_000, 10_300))
    assert error_usec(seen(regular, phase), regular[-1], phase) <= 600


@given(st.integers(0, PERIOD - 1))
def test_readings_a_period_apart_do_not_mislead(phase: int) -> None:
    """They hold one beginning or two, nobody knows which."""
    grid = seen(list(range(0, 1_000_000, 10_300)), phase)
    before = error_usec(grid, 999_000, phase)
    seen(list(range(999_000, 3_000_000, 99_000)), phase, grid)
    assert error_usec(grid, 3_000_000, phase) <= before


def test_another_timer_is_believed() -> None:
    grid = seen(list(range(0, 1_000_000, 10_300)), 20_000)
    seen(list(range(1_000_000, 2_000_000, 10_300)), 70_000, grid)
    assert error_usec(grid, 2_000_000, 70_000) <= 1_500
    grid.saw(reading(2_049_000, 0, 50_000), reading(2_051_000, 0, 50_000))
    assert grid.began_usec(2_060_000) == 2_050_000
