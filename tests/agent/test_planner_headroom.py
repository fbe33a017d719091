"""Quota that was left to the agent: taken within a period, and when it may not be taken any more."""

from collections.abc import Callable

import pytest

from escra_agent.counters import Counters
from escra_agent.planner import Plan
from escra_common.messages import CpuLimit, CpuOrder
from tests.agent.test_planner import counters, write

SMALL, LARGE = CpuLimit(20_000, 100_000), CpuLimit(30_000, 100_000)


def order(rev: int, milli: int, *, aligned: bool = True, burst: int = 0) -> CpuOrder:
    return CpuOrder(1, rev, milli, burst, aligned)


def lent(used_usec: int, headroom_milli: int = 100) -> tuple[Plan, Counters]:
    """At 0.2 cores, with this much above it, and so much used of a period that was seen to begin."""
    plan = Plan(SMALL)
    assert plan.stays(order(4, 200), headroom_milli)
    plan.saw(counters(6, 100_000, SMALL))
    plan.saw(counters(7, 100_000, SMALL))
    return plan, counters(7, 100_000 + used_usec, SMALL)


def test_it_is_taken_for_the_rest_of_the_period_and_wholly_at_its_end() -> None:
    plan, now = lent(used_usec=19_000)
    given = write(plan, plan.draw(now, 10.0))
    assert given == CpuLimit(11_000, 100_000), "19 ms are used of 30"
    assert (plan.stands_for, plan.rev, plan.obeyed_rev) == (LARGE, 5, 5)
    assert plan.draw(now, 10.001) is None, "once"
    assert plan.due(counters(7, 125_000, given), 10.01) is None
    assert write(plan, plan.due(counters(8, 130_000, given), 10.02)) == LARGE


@pytest.mark.parametrize(
    "void",
    [
        lambda plan: plan.take(order(7, 200), counters(), 0.0, idle=True),
        lambda plan: plan.stays(order(7, 200)),
        lambda plan: plan.refuse(order(7, 200)),
        lambda plan: plan.new_controller(),
    ],
    ids=["the next order", "the same limit again", "a refusal", "another connection"],
)
def test_it_is_void_after(void: Callable[[Plan], object]) -> None:
    plan, now = lent(used_usec=19_000)
    void(plan)
    assert plan.draw(now, 10.0) is None
    assert plan.rev != 5


def test_an_old_order_leaves_it_as_it_is() -> None:
    plan, now = lent(used_usec=19_000)
    assert not plan.stays(order(4, 200))
    assert plan.take(order(3, 200), now, 10.0, idle=False) is None
    assert plan.draw(now, 10.0) is not None


def test_where_what_is_used_is_not_known_or_at_the_ceiling_it_waits_for_the_boundary() -> None:
    plan = Plan(SMALL)
    assert plan.stays(order(4, 200), 100)
    assert plan.draw(counters(7, 119_000, SMALL), 10.0) is None
    assert plan.due(counters(7, 120_000, SMALL), 10.01) is None
    assert write(plan, plan.due(counters(8, 120_500, SMALL), 10.02)) == LARGE
    plan, now = lent(used_usec=19_000)
    assert plan.draw(now, 10.0, ceiling=True) is None
    assert plan.obeyed_rev != 5
    assert write(plan, plan.due(counters(8, 120_500, SMALL), 10.02)) == LARGE
    assert plan.obeyed_rev == 5


def test_it_is_not_taken_while_an_order_waits_for_its_boundary() -> None:
    plan, now = lent(used_usec=19_000)
    assert plan.take(order(6, 100), now, 10.0, 50, idle=False) is None
    assert plan.draw(now, 10.0) is None
    assert write(plan, plan.due(counters(8, 119_000, SMALL), 10.02)) == CpuLimit(10_000, 100_000)


def test_an_order_for_what_is_in_force_is_taken_without_a_write() -> None:
    plan, now = lent(used_usec=19_000)
    write(plan, plan.draw(now, 10.0))
    assert plan.stays(order(8, 300), 60)
    assert plan.waiting is not None, "the whole of it is still to be written"
    assert write(plan, plan.due(counters(8, 130_000), 10.02)) == LARGE
    assert plan.obeyed_rev == 8


@pytest.mark.parametrize(
    "other",
    [order(5, 201), order(5, 200, burst=10)],
    ids=["another limit", "a burst"],
)
def test_any_other_is_written(other: CpuOrder) -> None:
    plan, _ = lent(used_usec=0)
    assert not plan.stays(other)


def test_nothing_stays_of_one_that_is_not_managed_or_whose_order_waits() -> None:
    assert not Plan(None).stays(order(1, 200))
    plan, now = lent(used_usec=19_000)
    assert plan.take(order(6, 100), now, 10.0, idle=False) is None
    assert not plan.stays(order(7, 200)), "the kernel holds this, but is about to be told another"
    assert not plan.stays(order(7, 100)), "the kernel does not hold this yet"
