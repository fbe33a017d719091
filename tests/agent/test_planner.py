import pytest

from escra_agent.counters import Counters
from escra_agent.planner import Plan
from escra_agent.quotas import told_apart
from escra_common.messages import CpuLimit, CpuOrder

NONE = CpuLimit(None, 100_000)


def order(rev: int, milli: int, *, aligned: bool = False, burst: int = 0) -> CpuOrder:
    return CpuOrder(1, rev, milli, burst, aligned)


def counters(nr_periods: int = 0, usage_usec: int = 0, limit: CpuLimit = NONE) -> Counters:
    return Counters(0, usage_usec, nr_periods, 0, 0, limit)


def throttled(nr_periods: int, usage_usec: int, limit: CpuLimit = NONE) -> Counters:
    """In every period."""
    return Counters(0, usage_usec, nr_periods, nr_periods, 0, limit)


def test_a_plain_order_is_written_at_once_in_the_period_the_kernel_holds() -> None:
    assert Plan(None).take(order(1, 500), counters(), 0.0, idle=False) == CpuLimit(50_000, 100_000)
    short = counters(limit=CpuLimit(None, 20_000))
    assert Plan(None).take(order(1, 500), short, 0.0, idle=False) == CpuLimit(10_000, 20_000)


def test_no_quota_is_below_what_the_kernel_takes() -> None:
    assert Plan(None).take(order(1, 1), counters(), 0.0, idle=False) == CpuLimit(1_000, 100_000)


def test_a_burst_is_never_above_its_quota() -> None:
    limit = Plan(None).take(order(1, 100, burst=900), counters(), 0.0, idle=False)
    assert limit == CpuLimit(10_000, 100_000, 10_000)


def test_an_old_order_is_void() -> None:
    plan = Plan(None)
    plan.take(order(5, 500), counters(), 0.0, idle=False)
    assert plan.take(order(5, 900), counters(), 0.0, idle=False) is None
    assert plan.take(order(4, 900), counters(), 0.0, idle=False) is None
    plan.new_controller()
    assert plan.take(order(1, 900), counters(), 0.0, idle=False) is not None


def test_a_refused_order_voids_those_before_it() -> None:
    plan = waiting_plan()
    assert plan.refuse(order(2, 900))
    assert plan.waiting is None
    assert not plan.refuse(order(2, 900))
    assert plan.take(order(2, 400), counters(), 0.0, idle=False) is None
    assert plan.take(order(3, 400), counters(), 0.0, idle=False) is not None


def waiting_plan(*, ceiling: bool = False) -> Plan:
    plan = Plan(None)
    assert plan.take(order(1, 500, aligned=True), counters(7), 10.0, idle=False, ceiling=ceiling) is None
    return plan


def look(plan: Plan, start: float, end: float, nr_periods: int, usage_usec: int = 0) -> CpuLimit | None:
    """Ask every 2 ms, as the agent does; the first answer."""
    for step in range(round((end - start) / 0.002) + 1):
        if limit := plan.due(counters(nr_periods, usage_usec), start + step * 0.002):
            return limit
    return None


def test_an_aligned_order_waits_for_the_period_boundary() -> None:
    plan = waiting_plan()
    assert look(plan, 10.0, 10.06, 7) is None
    assert plan.due(counters(8), 10.062) == CpuLimit(50_000, 100_000)
    assert plan.due(counters(8), 10.064) is None, "once"


def test_of_a_period_that_was_used_before_its_boundary_was_noticed_only_the_rest_is_given() -> None:
    plan = waiting_plan(ceiling=True)
    assert plan.due(throttled(8, 9_000), 10.02) == CpuLimit(41_000, 100_000)
    assert plan.due(throttled(8, 50_000), 10.1) is None
    assert plan.due(throttled(9, 50_500), 10.102) == CpuLimit(50_000, 100_000)


def test_half_of_it_at_least_and_not_for_ever() -> None:
    plan = waiting_plan(ceiling=True)
    given = [plan.due(throttled(7 + n, 40_000 * n), 10.0 + n * 0.1) for n in range(1, 5)]
    assert given == [CpuLimit(25_000, 100_000)] * 3 + [CpuLimit(50_000, 100_000)]
    assert plan.waiting is None


@pytest.mark.parametrize("ceiling", [True, False])
def test_who_was_not_throttled_would_be_by_that_so_the_boundary_is_left_out(ceiling: bool) -> None:
    plan = waiting_plan(ceiling=ceiling)
    assert plan.due(counters(8, 9_000), 10.02) is None
    assert plan.due(counters(8, 30_000), 10.1) is None
    assert plan.due(counters(9, 31_000), 10.102) == CpuLimit(50_000, 100_000)


def test_where_the_rest_is_not_known_a_boundary_noticed_late_is_left_out() -> None:
    plan = Plan(None)
    assert plan.take(order(1, 500, aligned=True, burst=100), counters(7), 10.0, idle=False) is None
    assert plan.due(counters(8, 9_000), 10.02) is None
    assert plan.due(counters(9, 50_000), 10.12) is None
    assert plan.due(counters(10, 50_000), 10.202) == CpuLimit(50_000, 100_000, 10_000)


def test_what_a_boundary_may_be_late_grows_with_the_quota() -> None:
    plan = Plan(None)
    assert plan.take(order(1, 4000, aligned=True), counters(7), 10.0, idle=False) is None
    assert plan.due(counters(8, 9_000), 10.002) == CpuLimit(400_000, 100_000), "four processors, 2 ms"


def test_a_boundary_that_does_not_come_is_not_waited_for() -> None:
    plan = waiting_plan()
    assert look(plan, 10.0, 10.148, 7) is None
    assert look(plan, 10.15, 10.16, 7) == CpuLimit(50_000, 100_000)


def test_a_group_that_woke_up_meanwhile_gets_its_boundary() -> None:
    plan = waiting_plan()
    assert look(plan, 10.0, 10.16, 7, usage_usec=4_000) is None, "it is using its quota: no refill now"
    assert look(plan, 10.162, 10.2, 8, usage_usec=4_500) == CpuLimit(50_000, 100_000)


def test_an_idle_container_has_nothing_to_refill() -> None:
    assert Plan(None).take(order(1, 500, aligned=True), counters(7), 10.0, idle=True) is not None


def test_a_newer_order_replaces_one_that_waits() -> None:
    plan = Plan(None)
    plan.take(order(1, 300, aligned=True), counters(7), 10.0, idle=False)
    assert plan.take(order(2, 800), counters(7), 10.0, idle=False) == CpuLimit(80_000, 100_000)
    assert plan.waiting is None


# ---- the rest of a period ----------------------------------------------------------


def working(quota_usec: int, used_usec: int, burst_usec: int = 0) -> tuple[Plan, Counters]:
    """A container that was looked at as its period began, and now; what it has used since is known."""
    limit = CpuLimit(quota_usec, 100_000, burst_usec)
    plan = Plan(limit)
    plan.saw(counters(6, 100_000, limit))
    plan.saw(counters(7, 100_000, limit))
    return plan, counters(7, 100_000 + used_usec, limit)


def write(plan: Plan, limit: CpuLimit | None) -> CpuLimit:
    """As the agent does."""
    assert limit is not None
    plan.wrote(limit)
    plan.obeyed()
    return limit


def test_who_has_used_up_its_quota_gets_the_rest_of_a_higher_one_at_once() -> None:
    plan, now = working(10_000, used_usec=10_000)
    given = write(plan, plan.take(order(1, 250, aligned=True), now, 10.0, idle=False))
    assert given == CpuLimit(15_000, 100_000), "10 ms are used of 25"
    assert plan.stands_for == CpuLimit(25_000, 100_000)
    assert plan.obeyed_rev == 1
    assert plan.due(counters(7, 115_000, given), 10.01) is None
    assert plan.due(counters(7, 125_000, given), 10.012) is None
    assert write(plan, plan.due(counters(8, 125_000, given), 10.014)) == CpuLimit(25_000, 100_000)
    assert plan.stands_for == plan.wanted
    assert plan.left_over() is None


def test_a_cut_leaves_what_is_not_used_of_the_lower_quota() -> None:
    plan, now = working(80_000, used_usec=5_000)
    given = write(plan, plan.take(order(1, 400, aligned=True), now, 10.0, idle=False))
    assert given == CpuLimit(35_000, 100_000), "5 ms are used"


@pytest.mark.parametrize(
    ("quota_usec", "used_usec", "burst_usec", "milli"),
    [
        pytest.param(80_000, 25_000, 0, 400, id="a cut that would leave less than half"),
        pytest.param(80_000, 60_000, 0, 400, id="a cut below what is used"),
        pytest.param(10_000, 10_000, 0, 115, id="a raise that is not worth it"),
        pytest.param(10_000, 10_000, 5_000, 250, id="a burst"),
    ],
)
def test_else_it_waits_for_the_boundary(quota_usec: int, used_usec: int, burst_usec: int, milli: int) -> None:
    plan, now = working(quota_usec, used_usec, burst_usec)
    assert plan.take(order(1, milli, aligned=True), now, 10.0, idle=False) is None
    assert plan.waiting is not None


def test_a_raise_that_might_leave_less_than_there_is_waits_too() -> None:
    """4 ms may be of this period or of the one before."""
    limit = CpuLimit(30_000, 100_000)
    plan = Plan(limit)
    plan.saw(counters(6, 100_000, limit))
    plan.saw(counters(7, 104_000, limit))
    assert plan.take(order(1, 330, aligned=True), counters(7, 110_000, limit), 10.0, idle=False) is None
    assert plan.take(order(2, 350, aligned=True), counters(7, 110_000, limit), 10.0, idle=False) is not None


def test_whose_period_was_not_seen_to_begin_waits_too() -> None:
    limit = CpuLimit(10_000, 100_000)
    plan = Plan(limit)
    plan.saw(counters(6, 100_000, limit))
    assert plan.take(order(1, 250, aligned=True), counters(7, 130_000, limit), 10.0, idle=False) is None


def test_what_a_write_lets_through_beyond_its_limit_is_what_was_used_before_it() -> None:
    plan, now = working(10_000, used_usec=7_000)
    write(plan, plan.take(order(1, 250), now, 10.0, idle=False))
    assert plan.extra_usec == 7_000
    write(plan, plan.take(order(2, 400, aligned=True), counters(8, 110_000, now.limit), 10.0, idle=False))
    assert plan.extra_usec == 0, "the rest of a period is no more than its limit leaves"
    plan, now = working(10_000, used_usec=0)
    write(plan, plan.take(order(1, 250), now, 10.0, idle=False))
    assert plan.extra_usec == 0
    unknown = Plan(now.limit)
    write(unknown, unknown.take(order(1, 250), now, 10.0, idle=False))
    assert unknown.extra_usec == 25_000


def test_the_rest_of_a_period_is_never_the_limit_of_the_next_one() -> None:
    plan, now = working(10_000, used_usec=10_000)
    given = write(plan, plan.take(order(1, 250, aligned=True), now, 10.0, idle=False))
    late = plan.due(counters(8, 125_000, given), 10.05)
    assert late == CpuLimit(25_000, 100_000), "though nobody knows when it began"


def test_nor_when_the_order_is_void() -> None:
    plan, now = working(10_000, used_usec=10_000)
    given = write(plan, plan.take(order(1, 250, aligned=True), now, 10.0, idle=False))
    assert plan.take(order(2, 150, aligned=True), counters(7, 112_000, given), 10.01, idle=False) is None
    plan.new_controller()
    assert write(plan, plan.due(counters(8, 112_000, given), 10.05)) == CpuLimit(25_000, 100_000)
    assert plan.due(counters(9, 112_000, given), 10.15) is None, "the other order was not acknowledged"
    assert plan.wanted == CpuLimit(25_000, 100_000)


# ---- what is owed ------------------------------------------------------------------


def owing(quota_usec: int, owed_usec: int) -> tuple[Plan, Counters]:
    """Throttled in two periods, the second of which it overran; and as the third begins."""
    limit = CpuLimit(quota_usec, 100_000)
    plan = Plan(limit)
    for n, usage_usec in ((0, 0), (1, quota_usec), (2, 2 * quota_usec + owed_usec)):
        plan.saw(Counters(0, usage_usec, n, n, 0, limit))
        plan.saw(Counters(0, usage_usec, n + 1, n + 1, 0, limit))
    return plan, Counters(0, 2 * quota_usec + owed_usec, 3, 3, 0, limit)


def test_who_is_not_at_its_ceiling_is_not_throttled_for_what_it_owes() -> None:
    plan, now = owing(20_000, owed_usec=3_000)
    later = now._replace(usage_usec=now.usage_usec + 20_000)
    assert plan.take(order(1, 400, aligned=True), later, 10.0, idle=False) == CpuLimit(20_000, 100_000)


def test_what_is_owed_is_taken_off_the_period_after_the_boundary_once() -> None:
    plan, now = owing(20_000, owed_usec=3_000)
    assert plan.take(order(1, 205, aligned=True), now, 10.0, idle=False, ceiling=True) is None
    stopped = now._replace(usage_usec=now.usage_usec + 17_000)
    assert plan.due(stopped, 10.05) is None
    began = stopped._replace(nr_periods=4, nr_throttled=4)
    plan.saw(stopped._replace(usage_usec=stopped.usage_usec + 6_000))
    began = began._replace(usage_usec=stopped.usage_usec + 6_000)
    given = write(plan, plan.due(began, 10.1))
    assert given == CpuLimit(20_500 - 2_700 - 3_000, 100_000), "3 ms of the last period, and 2.7"
    ended = began._replace(usage_usec=began.usage_usec + 14_800, limit=given)
    assert plan.due(ended, 10.15) is None
    assert plan.due(ended._replace(nr_periods=5, nr_throttled=5), 10.2) == CpuLimit(20_500, 100_000)


def test_what_a_write_forgives_is_among_what_it_lets_through() -> None:
    plan, now = owing(20_000, owed_usec=1_500)
    assert plan.take(order(1, 205, aligned=True), now, 10.0, idle=False, ceiling=True) is None
    stopped = now._replace(usage_usec=now.usage_usec + 20_500)
    assert plan.due(stopped, 10.05) is None
    assert plan.due(stopped._replace(nr_periods=4, nr_throttled=4), 10.1) == CpuLimit(20_500, 100_000)
    assert plan.extra_usec == 500


def test_a_raise_to_the_ceiling_waits_for_the_boundary() -> None:
    plan, now = working(10_000, used_usec=10_000)
    assert plan.take(order(1, 250, aligned=True), now, 10.0, idle=False, ceiling=True) is None
    assert plan.due(now, 10.01) is None
    plan, now = working(80_000, used_usec=5_000)
    assert plan.take(order(1, 400, aligned=True), now, 10.0, idle=False, ceiling=True) is not None, "a cut"


def test_a_new_controller_voids_what_waits() -> None:
    plan = Plan(None)
    plan.take(order(1, 300, aligned=True), counters(7), 10.0, idle=False)
    plan.new_controller()
    assert plan.due(counters(8), 11.0) is None


def test_foreign_writes_are_repaired() -> None:
    plan = Plan(None)
    plan.wrote(CpuLimit(50_000, 100_000))
    assert plan.repair(CpuLimit(50_000, 100_000), NONE) is None
    assert plan.repair(NONE, NONE) == CpuLimit(50_000, 100_000)
    assert plan.repair(CpuLimit(50_000, 100_000, 10_000), NONE) == CpuLimit(50_000, 100_000)


def test_a_limit_of_ours_is_never_the_original() -> None:
    """By that an agent that was killed knows it."""
    original = CpuLimit(50_000, 100_000)
    assert told_apart(original, original) == CpuLimit(49_999, 100_000)
    assert told_apart(CpuLimit(50_000, 100_000, 20), original) == CpuLimit(50_000, 100_000, 20)
    with_burst = CpuLimit(50_000, 100_000, 50_000)
    assert told_apart(with_burst, with_burst) == CpuLimit(49_999, 100_000, 49_999)
    assert told_apart(NONE, NONE) == NONE
    least = CpuLimit(1_000, 100_000)
    assert told_apart(least, least) == least, "the kernel takes no less"


def test_a_limit_that_somebody_made_the_original_is_told_apart_again() -> None:
    plan, original = Plan(None), CpuLimit(50_000, 100_000)
    plan.wrote(original)
    assert plan.repair(original, NONE) is None
    assert plan.repair(original, original) == CpuLimit(49_999, 100_000)
    plan.wrote(CpuLimit(49_999, 100_000))
    assert plan.repair(CpuLimit(49_999, 100_000), original) is None
    assert plan.repair(original, original) == CpuLimit(49_999, 100_000), "docker update wrote it"


def test_who_is_not_managed_may_be_changed_by_anybody() -> None:
    assert Plan(None).repair(CpuLimit(1_000, 100_000), NONE) is None


def test_the_kernel_doubling_period_and_quota_is_no_foreign_write() -> None:
    plan = Plan(None)
    plan.wrote(CpuLimit(50_000, 100_000))
    assert plan.repair(CpuLimit(100_000, 200_000), NONE) is None
    assert plan.repair(CpuLimit(50_000, 100_000), NONE) is None, "and back"
    assert plan.repair(CpuLimit(50_000, 200_000), NONE) is not None
