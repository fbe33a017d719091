import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_common import units
from escra_common.units import least_millicores, parse_bytes, parse_cpu, quota_millicores, quota_usec


def test_examples() -> None:
    assert doctest.testmod(units).failed == 0


@pytest.mark.parametrize(
    "text", ["", "-1", "1e9", "nan", "inf", "1 000", "4 cores", "١", "0x10", "1001", "9" * 400]
)
def test_what_is_no_cpu_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an amount of CPU|more than 1000 cores"):
        parse_cpu(text)


@pytest.mark.parametrize("text", ["", "-1", "1e9", "nan", "2 giga", "2PiB", "1025TiB", "9" * 400])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a size|more than 1 PiB"):
        parse_bytes(text)


@given(st.text(max_size=30))
def test_no_text_does_anything_else(text: str) -> None:
    for parse in (parse_cpu, parse_bytes):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue


@given(st.integers(10, 1_000_000), st.integers(1_000, 1_000_000))
def test_a_limit_read_back_never_counts_more_than_was_ordered(milli: int, period_usec: int) -> None:
    """Else a write that did what it should would break the ledger."""
    back = quota_millicores(quota_usec(milli, period_usec), period_usec)
    assert back <= max(milli, least_millicores(period_usec))
