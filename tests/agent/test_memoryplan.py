"""What a container's memory limit should be, and when it asks for more: no kernel, no clock."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_agent.memoryplan import ANSWER_S, ASK_AGAIN_S, LOOK_S, NO_ANSWER, MemoryPlan
from escra_agent.memoryshape import Shape
from escra_common.messages import MemoryLimit, MemoryNeed, MemoryOrder

MIB = 1 << 20
NONE = MemoryLimit(None)
V1, V2 = Shape(NONE, banded=False), Shape(NONE, banded=True)
BOTH = pytest.mark.parametrize("shape", [V1, V2], ids=["v1", "v2"])
sizes = st.integers(4 * MIB, 1 << 40)


def managed(shape: Shape = V1, limit_bytes: int = 64 * MIB, used_bytes: int = 8 * MIB) -> MemoryPlan:
    """A quiet container under this limit, its order taken and written."""
    plan = MemoryPlan(1, shape, None)
    assert plan.take(MemoryOrder(1, 1, limit_bytes))
    plan.wrote(shape.limit(limit_bytes, used_bytes))
    see(plan, used_bytes, 0, 0.0)
    return plan


def see(plan: MemoryPlan, used_bytes: int, cache_bytes: int, now: float) -> bool:
    """As the agent does it: whether the cache was looked at."""
    plan.saw(used_bytes, now)
    if wanted := plan.wants_look(now):
        plan.looked(cache_bytes, now)
    return wanted


def ask(plan: MemoryPlan, now: float, *, paused: bool = False) -> MemoryNeed | None:
    return plan.need(now, paused=paused, seen_usec=int(now * 1e6))


# ---- needs -------------------------------------------------------------------------


@BOTH
def test_a_quiet_container_is_left_alone_and_not_looked_at(shape: Shape) -> None:
    plan = managed(shape, used_bytes=40 * MIB)
    for tick in range(1, 100):
        assert not see(plan, 40 * MIB, 0, tick / 10)
        assert ask(plan, tick / 10) is None


@BOTH
def test_near_the_limit_it_asks(shape: Shape) -> None:
    plan = managed(shape)
    assert see(plan, 63 * MIB, 0, 10.0)
    need = ask(plan, 10.0)
    assert need is not None
    assert (need.key, need.serial, need.limit_bytes, need.needed_bytes) == (1, 1, 64 * MIB, 63 * MIB)
    assert not need.paused
    assert need.seen_usec == 10_000_000


@BOTH
def test_fast_growth_asks_early(shape: Shape) -> None:
    plan = managed(shape)
    see(plan, 8 * MIB, 0, 10.0)
    see(plan, 40 * MIB, 0, 10.1)
    need = ask(plan, 10.1)
    assert need is not None, "at this rate it is full before the next tick but one"
    assert need.growth == pytest.approx(320 * MIB, rel=0.02)


@BOTH
@given(st.lists(st.tuples(st.integers(0, 64), st.floats(0.9, 1.0)), min_size=1, max_size=50))
def test_file_cache_is_no_need(shape: Shape, steps: list[tuple[int, float]]) -> None:
    """However fast a container fills up with cache, what it needs itself is far below its limit."""
    plan = managed(shape, 256 * MIB, 8 * MIB)
    for tick, (quarter, share) in enumerate(steps, 1):
        used = (8 + quarter * 31 // 8) * MIB
        see(plan, used, int((used - 8 * MIB) * share), tick / 10)
        assert ask(plan, tick / 10) is None


@BOTH
def test_without_a_look_at_the_cache_nobody_is_short(shape: Shape) -> None:
    plan = managed(shape)
    assert see(plan, 64 * MIB, 60 * MIB, 1.0)
    plan.saw(64 * MIB, 1.01)
    assert not plan.wants_look(1.01), "60 MiB cannot be used up in 10 ms"
    assert ask(plan, 1.01) is None
    assert plan.wants_look(1.0 + LOOK_S)


def test_little_cache_is_looked_at_again_soon() -> None:
    plan = managed()
    assert see(plan, 64 * MIB, 4 * MIB, 1.0)
    assert not plan.wants_look(1.003)
    assert plan.wants_look(1.005)


@BOTH
def test_a_paused_container_always_asks(shape: Shape) -> None:
    plan = managed(shape)
    plan.saw(64 * MIB, 1.0)
    need = ask(plan, 1.0, paused=True)
    assert need is not None
    assert need.paused


def test_who_is_not_managed_asks_for_nothing() -> None:
    plan = MemoryPlan(1, V1, None)
    assert not see(plan, 1 << 40, 0, 0.0)
    assert ask(plan, 0.0, paused=True) is None


# ---- answers -----------------------------------------------------------------------


def short(shape: Shape = V1, *, paused: bool = False) -> MemoryPlan:
    """One that has asked at second 10."""
    plan = managed(shape)
    see(plan, 64 * MIB, 0, 10.0)
    assert ask(plan, 10.0, paused=paused) is not None
    return plan


@BOTH
def test_an_open_need_is_said_again_under_its_serial(shape: Shape) -> None:
    plan = short(shape)
    sent = []
    for tick in range(1, 9):
        see(plan, 64 * MIB, 0, 10 + tick * 0.11)
        sent.append(ask(plan, 10 + tick * 0.11))
    assert [need is not None for need in sent] == [False, True] * 4
    assert {need.serial for need in sent if need} == {1}


def test_a_pause_is_said_at_once() -> None:
    plan = short()
    need = ask(plan, 10.01, paused=True)
    assert need is not None
    assert (need.serial, need.paused) == (1, True)
    assert ask(plan, 10.02, paused=True) is None


@BOTH
def test_a_raise_answers_and_the_next_need_is_another(shape: Shape) -> None:
    plan = short(shape)
    assert plan.take(MemoryOrder(1, 2, 80 * MIB))
    assert plan.asked is None
    plan.wrote(shape.limit(80 * MIB, 64 * MIB))
    see(plan, 80 * MIB, 0, 12.0)
    need = ask(plan, 12.0)
    assert need is not None
    assert (need.serial, need.limit_bytes) == (2, 80 * MIB)


def test_a_cut_on_its_way_is_no_answer() -> None:
    plan = short()
    assert plan.take(MemoryOrder(1, 2, 32 * MIB))
    assert plan.asked is not None


@BOTH
def test_an_order_for_what_there_is_answers_too(shape: Shape) -> None:
    """A need that met a cut on its way: granted is what the cut, ending early, had left."""
    plan = short(shape, paused=True)
    assert plan.take(MemoryOrder(1, 2, 64 * MIB))
    see(plan, 64 * MIB, 0, 10.2)
    need = ask(plan, 10.2, paused=True)
    assert need is not None
    assert need.serial == 2


def test_an_old_order_is_void() -> None:
    plan = managed()
    assert plan.take(MemoryOrder(1, 5, 80 * MIB))
    assert not plan.take(MemoryOrder(1, 5, 90 * MIB))
    assert not plan.take(MemoryOrder(1, 4, 90 * MIB))
    plan.new_controller()
    assert plan.take(MemoryOrder(1, 1, 90 * MIB))


def test_a_denial_answers_its_own_need_only() -> None:
    plan = short()
    assert not plan.deny(7, "for another", 10.1)
    assert plan.deny(1, "the pool is empty", 10.1)
    assert not plan.deny(1, "again", 10.2)
    assert plan.denied is not None
    assert plan.denied.reason == "the pool is empty"


def test_v1_disarms_while_a_denied_container_is_paused() -> None:
    plan = short(paused=True)
    assert plan.wants_arms
    plan.deny(1, "the pool is empty", 10.1)
    assert not plan.wants_arms
    plan.recover(10.2, paused=True)
    assert not plan.wants_arms
    plan.recover(10.3, paused=False)
    assert plan.wants_arms


def test_v1_stays_armed_when_one_that_asked_ahead_is_denied() -> None:
    plan = short()
    plan.deny(1, "the pool is empty", 10.1)
    assert plan.wants_arms
    see(plan, 64 * MIB, 0, 10.2)
    assert ask(plan, 10.2) is None, "not at once again"
    need = ask(plan, 10.3, paused=True)
    assert need is not None, "now it matters more"
    assert need.serial == 2


def test_v2_lets_the_kernel_kill_at_the_limit_after_a_denial() -> None:
    plan = short(V2)
    plan.deny(1, "the pool is empty", 10.1)
    assert plan.band(10.1, helped=True) == MemoryLimit(64 * MIB, 64 * MIB)
    plan.wrote(MemoryLimit(64 * MIB, 64 * MIB))
    plan.recover(10.2, paused=False)
    assert plan.band(10.2, helped=True) is None
    see(plan, 20 * MIB, 0, 14.0)
    plan.recover(14.0, paused=False)
    assert plan.band(14.0, helped=True) == MemoryLimit(64 * MIB, 62 * MIB), "back below the limit"


def test_v2_a_denial_stands_though_less_is_in_use_than_it_takes_to_ask() -> None:
    """Who was held back in a wide band would be held back there for ever, asking and being refused."""
    plan = short(V2)
    plan.deny(1, "the pool is empty", 10.1)
    see(plan, 60 * MIB, 0, 10.2)
    plan.recover(10.2, paused=False)
    assert plan.band(10.2, helped=True) == MemoryLimit(64 * MIB, 64 * MIB)


def test_v2_without_help_is_not_throttled_below_its_limit() -> None:
    plan = managed(V2)
    assert plan.band(1.0, helped=True) is None
    assert plan.band(1.0, helped=False) == MemoryLimit(64 * MIB, 64 * MIB)


def test_the_band_follows_the_growth_in_large_steps() -> None:
    plan = managed(V2, 1 << 30)
    plan.saw(100 * MIB, 5.0)
    plan.saw(110 * MIB, 5.1)
    assert plan.band(5.1, helped=True) is None
    plan.saw(510 * MIB, 5.2)
    moved = plan.band(5.2, helped=True)
    assert moved is not None
    assert moved.high_bytes is not None
    assert (1 << 30) - moved.high_bytes > 100 * MIB
    assert managed(V1).band(5.2, helped=True) is None


def test_the_band_holds_back_who_grows_until_the_answer_comes() -> None:
    plan = managed(V2, 100 * MIB)
    for step in range(20):
        now = 10 + step / 100
        see(plan, 98 * MIB + step * (MIB // 20), 0, now)
        assert (ask(plan, now) is not None) == (step == 0)
        assert plan.band(now, helped=True) is None, "memory.high does not give way"


@BOTH
def test_no_answer_is_a_denial_and_it_asks_again_later(shape: Shape) -> None:
    plan = short(shape, paused=True)
    assert ask(plan, 10 + ANSWER_S, paused=True) is None
    assert plan.denied is not None
    assert plan.denied.reason == NO_ANSWER
    assert ask(plan, 10.1 + ANSWER_S, paused=True) is None
    need = ask(plan, 10 + ANSWER_S + ASK_AGAIN_S, paused=True)
    assert need is not None
    assert need.serial == 2


def test_one_that_got_memory_back_by_itself_takes_its_need_back() -> None:
    plan = short()
    plan.saw(10 * MIB, 10.1)
    plan.looked(0, 10.1)
    assert ask(plan, 10.1) is None
    assert plan.asked is None


# ---- drift, and the end ------------------------------------------------------------


def test_foreign_writes_are_repaired() -> None:
    plan = managed()
    assert plan.repair(MemoryLimit(64 * MIB)) is None
    assert plan.repair(NONE) == MemoryLimit(64 * MIB)
    assert plan.repair(MemoryLimit(64 * MIB, None, 64 * MIB)) == MemoryLimit(64 * MIB)
    assert MemoryPlan(1, V1, None).repair(NONE) is None


def test_what_is_under_way_is_void_after_the_end() -> None:
    plan = short()
    turn = plan.turn
    plan.let_go()
    assert plan.turn != turn
    assert plan.wanted is None
    assert plan.asked is None
    assert not plan.wants_arms


@BOTH
@given(
    st.lists(
        st.tuples(
            st.integers(0, 64), st.floats(0, 1), st.booleans(), st.sampled_from(["", "raise", "cut", "deny"])
        ),
        max_size=80,
    )
)
def test_whatever_happens_serials_and_answers_stay_in_order(
    shape: Shape, steps: list[tuple[int, float, bool, str]]
) -> None:
    plan, serial, limit_bytes = managed(shape), 0, 64 * MIB
    revs = itertools.count(2)
    for tick, (used, share, paused, answer) in enumerate(steps, 1):
        now = tick / 10
        size = min(limit_bytes, used * MIB)
        see(plan, size, int(size * share), now)
        plan.recover(now, paused=paused)
        if need := ask(plan, now, paused=paused):
            assert need.serial in (serial, serial + 1)
            assert need.limit_bytes <= limit_bytes or need.serial == serial
            assert 0 <= need.needed_bytes <= limit_bytes
            serial = need.serial
        if answer in ("raise", "cut"):
            limit_bytes = max(4 * MIB, limit_bytes + (MIB if answer == "raise" else -MIB))
            assert plan.take(MemoryOrder(1, next(revs), limit_bytes))
            plan.wrote(shape.limit(limit_bytes, size))
        elif answer == "deny":
            assert plan.deny(serial, "no", now) is (plan.denied is not None and plan.denied.since == now)
        assert not (plan.asked and plan.asked.serial != serial)


def test_a_refused_order_voids_the_cut_before_it_and_leaves_the_need_open() -> None:
    plan = managed(limit_bytes=64 * MIB)
    see(plan, 63 * MIB, 0, 1.0)
    assert plan.need(1.0, paused=True, seen_usec=0) is not None
    turn = plan.turn
    assert plan.refuse(MemoryOrder(1, 2, 1 << 40))
    assert plan.turn != turn
    assert plan.asked is not None
    assert not plan.take(MemoryOrder(1, 2, 128 * MIB))
    assert plan.take(MemoryOrder(1, 3, 128 * MIB))


# ---- between two ticks -------------------------------------------------------------


@BOTH
def test_who_grows_towards_the_limit_climbs_until_it_stops(shape: Shape) -> None:
    plan = managed(shape)
    assert not plan.climbs(0.0)
    see(plan, 16 * MIB, 0, 0.1)  # 80 MiB/s, 46 MiB from the line: half a second
    assert not plan.climbs(0.1)
    see(plan, 32 * MIB, 0, 0.2)
    assert plan.climbs(0.2)
    see(plan, 32 * MIB, 0, 1.3)
    assert not plan.climbs(1.3)


def test_who_was_refused_does_not_climb() -> None:
    plan = managed()
    see(plan, 40 * MIB, 0, 0.1)
    assert plan.climbs(0.1)
    need = ask(plan, 0.1)
    assert need is not None
    assert plan.deny(need.serial, "the pool is empty", 0.1)
    assert not plan.climbs(0.1)


def test_what_was_seen_to_grow_at_the_last_look_is_forgotten_without_another() -> None:
    plan = managed()
    plan.saw(10 * MIB, 1.0)
    plan.looked(8 * MIB, 1.0)
    plan.looked(4 * MIB, 2.0)
    plan.saw(10 * MIB, 2.1)
    assert not plan.quiet(2.1)
    assert plan.quiet(3.1)
