"""What an agent may take without asking, and when it may not any more."""

from collections.abc import Callable

import pytest

from escra_agent.memoryplan import MemoryPlan
from escra_common.messages import MemoryLimit, MemoryOrder
from tests.agent.test_memoryplan import MIB, ask, managed, see


def with_headroom(headroom_bytes: int = 16 * MIB) -> MemoryPlan:
    plan = managed()
    assert plan.take(MemoryOrder(1, 2, 64 * MIB, 0, headroom_bytes), headroom_bytes)
    plan.wrote(MemoryLimit(64 * MIB))
    return plan


def test_headroom_is_drawn_once_and_meets_the_need() -> None:
    plan = with_headroom()
    see(plan, 63 * MIB, 0, 1.0)
    assert ask(plan, 1.0) is not None
    assert plan.draw() == 80 * MIB
    plan.drew(MemoryLimit(80 * MIB))
    assert (plan.wanted, plan.asked, plan.rev) == (MemoryLimit(80 * MIB), None, 2)
    assert plan.draw() is None


@pytest.mark.parametrize(
    "void",
    [
        lambda plan: plan.take(MemoryOrder(1, 3, 64 * MIB)),
        lambda plan: plan.refuse(MemoryOrder(1, 3, 64 * MIB)),
        lambda plan: plan.new_controller(),
        lambda plan: plan.let_go(),
        lambda plan: plan.wrote(MemoryLimit(96 * MIB)),
    ],
    ids=["the next order", "a refusal", "another connection", "let go", "more than that in force"],
)
def test_headroom_is_void_after(void: Callable[[MemoryPlan], object]) -> None:
    plan = with_headroom()
    void(plan)
    assert plan.draw() is None


def test_an_old_order_leaves_the_headroom_as_it_is() -> None:
    plan = with_headroom()
    assert not plan.take(MemoryOrder(1, 1, 64 * MIB, 0, 0))
    assert plan.draw() == 80 * MIB


def test_headroom_that_caps_forbid_is_none() -> None:
    plan = managed()
    assert plan.take(MemoryOrder(1, 2, 64 * MIB, 0, 16 * MIB), 0)
    assert plan.draw() is None
