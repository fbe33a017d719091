"""How fast memory grows, by readings at times of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_agent.growth import Growth

MIB = 1 << 20


def test_growth_is_that_of_the_fastest_interval_and_fades() -> None:
    growth = Growth()
    for size, now in ((0, 0.0), (10, 0.1), (110, 0.2), (120, 0.3)):
        growth.saw(size * MIB, now)
    assert growth.rate(0.2) == pytest.approx(1000 * MIB, rel=0.01)
    assert growth.rate(0.7) == pytest.approx(500 * MIB, rel=0.01)
    assert growth.rate(1.3) == 0


def test_readings_at_the_same_time_are_one() -> None:
    growth = Growth()
    growth.saw(0, 0.0)
    growth.saw(100 * MIB, 0.001)
    assert growth.rate(0.001) == 0
    growth.saw(100 * MIB, 0.1)
    assert growth.rate(0.1) == pytest.approx(1000 * MIB, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.floats(0, 3)), max_size=60))
def test_growth_is_never_below_zero_nor_above_what_was_seen(steps: list[tuple[int, float]]) -> None:
    growth, now, before, fastest = Growth(), 0.0, 0, 0.0
    for size, pause in steps:
        now += pause
        growth.saw(size, now)
        fastest = max(fastest, abs(size - before) / 0.005)
        before = size
        assert 0 <= growth.rate(now) <= fastest + max(s for s, _ in steps) / 0.005
