"""Quota of one period that goes from container to container, and that nothing is left of it afterwards."""

import pytest

from escra_agent.counters import Counters
from escra_agent.planner import Plan
from escra_common.messages import CpuLimit, CpuOrder
from tests.agent.test_planner import write

LIMIT = CpuLimit(50_000, 100_000)
EVERYTHING = float("inf")


def reading(ms: float, used_ms: float, limit: CpuLimit = LIMIT) -> Counters:
    """Periods begin at 0, 100, ... ms."""
    return Counters(int(ms * 1000), int(used_ms * 1000), int(ms // 100), 0, 0, limit)


def plan_at(ms: float, used_ms: float, limit: CpuLimit = LIMIT) -> tuple[Plan, Counters]:
    """At rest until a second; then so much was used until ``ms``, of a period that began at 1000."""
    plan = Plan(limit)
    for before in (0.0, 1.0, 99.0, 101.0, 199.0, 999.5, 1000.5):
        plan.saw(reading(before, 0, limit))
    now = reading(ms, used_ms, limit)
    plan.saw(now)
    return plan, now


def test_what_is_spare_is_what_is_left_less_what_will_be_used() -> None:
    plan, now = plan_at(1040, 4)
    spare = plan.spare_usec(now, rate=0.1)
    # 60 ms at a tenth of a core, and some more.
    assert 50_000 - 4_000 - 2 * 6_000 - 5_000 <= spare <= 50_000 - 4_000 - 6_000 - 2_000
    assert plan.spare_usec(now, rate=0.5) < spare
    assert plan.spare_usec(now, rate=1.0) <= 0


def test_who_used_more_of_late_keeps_more() -> None:
    plan, now = plan_at(1040, 4)
    plan.saw(reading(1099, 40))
    plan.saw(now := reading(1201, 41))
    restless = plan.spare_usec(now, rate=0.0)
    for n in range(1, 12):
        plan.saw(now := reading(1201 + 100 * n, 41))
    assert restless < plan.spare_usec(now, rate=0.0)


def test_nothing_is_spare_where_it_is_not_known() -> None:
    assert Plan(None).spare_usec(reading(40, 1), 0.0) == 0
    assert Plan(LIMIT).spare_usec(reading(40, 1), 0.0) == 0, "no period was seen to begin"
    bursty = CpuLimit(50_000, 100_000, 10_000)
    assert plan_at(1040, 4, bursty)[0].spare_usec(reading(1040, 4, bursty), 0.0) == 0


def test_who_lends_has_the_rest_for_this_period_and_all_of_it_in_the_next() -> None:
    plan, now = plan_at(1040, 4)
    assert write(plan, plan.move(-20_000, now, 1.04)) == CpuLimit(50_000 - 4_000 - 20_000, 100_000)
    assert plan.stands_for == LIMIT
    assert 0 < plan.spare_usec(now, 0.0) < 26_000
    assert 1_090_000 <= plan.look_usec < 1_100_000
    assert plan.due(reading(1099, 5), 1.099) is None
    assert write(plan, plan.due(reading(1101, 5), 1.101)) == LIMIT
    later = reading(1140, 9)
    plan.saw(later)
    assert write(plan, plan.move(-20_000, later, 1.14)) == CpuLimit(26_000, 100_000), "nothing is left of it"


def test_where_the_period_did_not_end_it_is_looked_for_less_often() -> None:
    plan, now = plan_at(1040, 4)
    write(plan, plan.move(-20_000, now, 1.04))
    for ms, again_ms in ((1099, 1099), (1101, 1101), (1103, 1105), (1105, 1107)):
        late = Counters(ms * 1000, 4_000, 10, 0, 0, LIMIT)
        assert plan.due(late, ms / 1000) is None
        assert max(plan.look_usec, late.time_usec) == again_ms * 1000


def test_where_a_period_should_have_begun_just_now_its_end_is_looked_for_at_once() -> None:
    """Its timer may be late, and nothing of the one before is to be lent for the next."""
    plan, _ = plan_at(1040, 4)
    late = Counters(1_101_000, 5_000, 10, 0, 0, LIMIT)
    assert plan.spare_usec(late, 0.0) == 0
    plan.take(CpuOrder(1, 1, 800, aligned=True), late, 1.101, idle=False, ceiling=True)
    assert plan.look_usec <= late.time_usec


def test_who_takes_may_use_what_others_gave_beside_its_own() -> None:
    plan, now = plan_at(1040, 48)
    lacks = plan.lacks_usec(now, 1.0, EVERYTHING)
    assert lacks == 48_000, "so that its file never says more than its limit"
    assert write(plan, plan.move(30_000, now, 1.04)) == CpuLimit(50_000 + 30_000 - 48_000, 100_000)
    assert plan.stands_for == LIMIT
    now = reading(1065, 73)
    plan.saw(now)
    again = plan.lacks_usec(now, 1.0, EVERYTHING)
    assert again == pytest.approx(73_000 + 1.25 * 35_000 - 80_000, abs=2_000)
    assert write(plan, plan.move(20_000, now, 1.065)) == CpuLimit(50_000 + 50_000 - 73_000, 100_000)
    plan.saw(reading(1099, 90))
    assert write(plan, plan.due(reading(1101, 91), 1.101)) == LIMIT


def test_what_was_used_beyond_a_loan_is_taken_off_the_next_periods() -> None:
    """What is written forgives it."""
    plan, now = plan_at(1040, 48)
    write(plan, plan.move(10_000, now, 1.04))
    plan.saw(reading(1099, 68))
    assert write(plan, plan.due(reading(1101, 68), 1.101)) == CpuLimit(42_000, 100_000)
    assert plan.stands_for == LIMIT
    assert plan.due(reading(1199, 111), 1.199) is None
    assert write(plan, plan.due(reading(1201, 111), 1.201)) == LIMIT
    assert plan.due(reading(1301, 140), 1.301) is None


def test_who_owes_much_keeps_what_it_has_until_the_kernel_has_taken_it_back() -> None:
    plan, now = plan_at(1040, 48)
    write(plan, plan.move(10_000, now, 1.04))
    plan.saw(reading(1099, 100))
    assert plan.due(reading(1101, 100), 1.101) is None, "of 12 ms the kernel takes"
    plan.saw(reading(1199, 100))
    assert write(plan, plan.due(reading(1201, 100), 1.201)) == LIMIT


def test_what_a_lender_used_beyond_its_rest_is_taken_off_as_well() -> None:
    plan, now = plan_at(1040, 4)
    write(plan, plan.move(-40_000, now, 1.04))
    plan.saw(reading(1099, 18))
    assert write(plan, plan.due(reading(1101, 18), 1.101)) == CpuLimit(42_000, 100_000)


def test_who_lends_keeps_what_a_quota_is_at_least() -> None:
    plan, now = plan_at(1040, 1, CpuLimit(3_000, 100_000))
    assert plan.spare_usec(now, rate=0.0) <= 1_000


def test_what_was_lent_is_told_when_an_order_gives_it_back() -> None:
    plan, now = plan_at(1040, 4)
    write(plan, plan.move(-20_000, now, 1.04))
    assert write(plan, plan.take(CpuOrder(1, 1, 400), now, 1.05, idle=True)) == CpuLimit(40_000, 100_000)
    assert plan.extra_usec == 20_000


def test_who_may_not_use_more_takes_no_more() -> None:
    plan, now = plan_at(1040, 48)
    assert plan.lacks_usec(now, 1.0, 60_000) == 10_000
    assert write(plan, plan.move(10_000, now, 1.04)) is not None
    assert plan.lacks_usec(now, 1.0, 60_000) <= 0


def test_too_little_is_not_worth_a_write() -> None:
    plan, now = plan_at(1040, 50)
    assert plan.move(900, now, 1.04) is None
    assert plan.waiting is None


@pytest.mark.parametrize(("moved_usec", "left_usec"), [(-10_000, 26_000), (0, 36_000)])
def test_what_was_lent_counts_as_used_when_a_cut_comes(moved_usec: int, left_usec: int) -> None:
    plan, now = plan_at(1040, 4)
    if moved_usec:
        write(plan, plan.move(moved_usec, now, 1.04))
    order = CpuOrder(1, 1, 400, aligned=True)
    assert write(plan, plan.take(order, now, 1.05, idle=False)) == CpuLimit(left_usec, 100_000)
    assert write(plan, plan.due(reading(1101, 5), 1.101)) == CpuLimit(40_000, 100_000)


def test_what_was_used_of_a_loan_is_not_owed() -> None:
    plan, now = plan_at(1040, 48)
    write(plan, plan.move(30_000, now, 1.04))
    plan.saw(reading(1090, 80))
    assert write(plan, plan.due(reading(1101, 80), 1.101)) == LIMIT
    now = reading(1140, 128)
    plan.saw(now)
    assert write(plan, plan.move(30_000, now, 1.14)) == CpuLimit(50_000 + 30_000 - 48_000, 100_000)


def test_over_another_connection_it_ends_with_its_period() -> None:
    """Sooner its whole quota would be handed out beside what was lent of it."""
    plan, now = plan_at(1040, 4)
    write(plan, plan.move(-20_000, now, 1.04))
    plan.new_controller()
    assert plan.left_over() is None
    plan.saw(reading(1099, 5))
    assert write(plan, plan.due(reading(1101, 5), 1.101)) == LIMIT
