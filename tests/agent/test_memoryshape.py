"""The files that make one memory limit: its band, its swap, and whose it is."""

from hypothesis import given
from hypothesis import strategies as st

from escra_agent.memoryplan import MemoryPlan
from escra_agent.memoryshape import Shape, band_bytes
from escra_common.messages import MemoryLimit
from tests.agent.test_memoryplan import MIB, NONE, V1, V2, sizes


@given(sizes, sizes, st.integers(0, 1 << 40))
def test_the_band_lies_between_what_is_in_use_and_the_limit(size: int, used: int, growth: int) -> None:
    limit = V2.limit(size, used, growth)
    assert limit.max_bytes == size
    assert limit.high_bytes is not None
    assert min(used, size) <= limit.high_bytes <= size
    assert size - limit.high_bytes <= size / 4 + 1
    assert V1.limit(size, used, growth).high_bytes is None


@given(sizes, st.integers(0, 1 << 40))
def test_the_faster_it_grows_the_wider_the_band(size: int, growth: int) -> None:
    assert band_bytes(size, 0) <= band_bytes(size, growth) <= band_bytes(size, 2 * growth) <= size // 4


@given(sizes, st.none() | sizes, st.none() | sizes)
def test_the_swap_on_top_is_what_the_original_allowed(size: int, had: int | None, swap: int | None) -> None:
    memsw = None if had is None or swap is None else had + swap
    shaped = Shape(MemoryLimit(had, None, memsw), banded=False).limit(size, 0).swap_bytes
    page = 4096 if size == had and size > 4096 else 0  # it is never the original itself
    assert shaped == (None if memsw is None else size - page + (swap or 0))
    on_v2 = Shape(MemoryLimit(had, None, swap), banded=True).limit(size, 0)
    assert on_v2.swap_bytes == swap, "there it is counted by itself"


def test_a_limit_of_ours_is_never_the_original() -> None:
    """By that an agent that was killed knows it."""
    page = 4096
    for original in (MemoryLimit(64 * MIB), MemoryLimit(64 * MIB, None, 96 * MIB)):
        ours = Shape(original, banded=False).limit(64 * MIB, 0)
        swap = original.swap_bytes and original.swap_bytes - page
        assert ours == MemoryLimit(64 * MIB - page, None, swap)
    high = MemoryLimit(64 * MIB, 64 * MIB, 0)
    ours = Shape(high, banded=True).limit(64 * MIB, 64 * MIB)
    assert ours == MemoryLimit(64 * MIB - page, 64 * MIB - page, 0)
    tiny = MemoryLimit(page)
    assert Shape(tiny, banded=False).limit(page, 0) == tiny
    plan = MemoryPlan(1, V1, None)
    plan.wrote(MemoryLimit(64 * MIB))
    plan.shape = Shape(MemoryLimit(64 * MIB), banded=False)
    assert plan.repair(NONE) == MemoryLimit(64 * MIB - page)
