from escra_agent.counters import Counters
from escra_agent.planner import Plan
from escra_common.messages import CpuLimit, CpuOrder

NONE = CpuLimit(None, 100_000)


def order(rev: int, milli: int, *, aligned: bool = False, burst: int = 0) -> CpuOrder:
    return CpuOrder(1, rev, milli, burst, aligned)


def counters(nr_periods: int = 0, usage_usec: int = 0, limit: CpuLimit = NONE) -> Counters:
    return Counters(0, usage_usec, nr_periods, 0, 0, limit)


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


def waiting_plan() -> Plan:
    plan = Plan(None)
    assert plan.take(order(1, 500, aligned=True), counters(7), 10.0, idle=False) is None
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


def test_a_boundary_noticed_late_is_left_out_but_not_for_ever() -> None:
    plan = waiting_plan()
    assert plan.due(counters(8), 10.02) is None, "nobody knows when in these 20 ms it was"
    assert look(plan, 10.022, 10.1, 8) is None
    assert plan.due(counters(9), 10.102) == CpuLimit(50_000, 100_000)
    plan, written = waiting_plan(), None
    for n in range(1, 5):
        written = written or plan.due(counters(7 + n), 10.0 + n * 0.1)
    assert written is not None


def test_a_boundary_that_does_not_come_is_not_waited_for() -> None:
    plan = waiting_plan()
    assert look(plan, 10.0, 10.148, 7) is None
    assert look(plan, 10.15, 10.16, 7) == CpuLimit(50_000, 100_000)


def test_a_group_that_woke_up_meanwhile_gets_its_boundary() -> None:
    plan = waiting_plan()
    assert look(plan, 10.0, 10.16, 7, usage_usec=4_000) is None, "it is using its quota: no refill now"
    assert look(plan, 10.162, 10.2, 8, usage_usec=9_000) == CpuLimit(50_000, 100_000)


def test_an_idle_container_has_nothing_to_refill() -> None:
    assert Plan(None).take(order(1, 500, aligned=True), counters(7), 10.0, idle=True) is not None


def test_a_newer_order_replaces_one_that_waits() -> None:
    plan = Plan(None)
    plan.take(order(1, 300, aligned=True), counters(7), 10.0, idle=False)
    assert plan.take(order(2, 800), counters(7), 10.0, idle=False) == CpuLimit(80_000, 100_000)
    assert plan.waiting is None


def test_a_new_controller_voids_what_waits() -> None:
    plan = Plan(None)
    plan.take(order(1, 300, aligned=True), counters(7), 10.0, idle=False)
    plan.new_controller()
    assert plan.due(counters(8), 11.0) is None


def test_foreign_writes_are_repaired() -> None:
    plan = Plan(None)
    plan.wrote(CpuLimit(50_000, 100_000))
    assert plan.repair(CpuLimit(50_000, 100_000)) is None
    assert plan.repair(NONE) == CpuLimit(50_000, 100_000)
    assert plan.repair(CpuLimit(50_000, 100_000, 10_000)) == CpuLimit(50_000, 100_000)


def test_who_is_not_managed_may_be_changed_by_anybody() -> None:
    assert Plan(None).repair(CpuLimit(1_000, 100_000)) is None


def test_the_kernel_doubling_period_and_quota_is_no_foreign_write() -> None:
    plan = Plan(None)
    plan.wrote(CpuLimit(50_000, 100_000))
    assert plan.repair(CpuLimit(100_000, 200_000)) is None
    assert plan.repair(CpuLimit(50_000, 100_000)) is None, "and back"
    assert plan.repair(CpuLimit(50_000, 200_000)) is not None


# ---- credit ------------------------------------------------------------------------


def lent(rev: int, milli: int, credit: int, *, aligned: bool = True) -> CpuOrder:
    return CpuOrder(1, rev, milli, 0, aligned, credit)


def with_credit() -> Plan:
    """0.2 cores in force, and 0.3 more on credit."""
    plan = Plan(None)
    in_force = plan.take(lent(1, 200, 300, aligned=False), counters(), 0.0, idle=False)
    assert plan.draw() is None, "not before the order is in force"
    assert in_force is not None
    plan.wrote(in_force)
    plan.obeyed()
    return plan


def drawn(plan: Plan) -> CpuLimit:
    limit = plan.draw()
    assert limit is not None
    plan.wrote(limit)
    return limit


def test_credit_is_drawn_once_and_wholly() -> None:
    plan = with_credit()
    assert drawn(plan) == CpuLimit(50_000, 100_000)
    assert plan.draw() is None
    assert plan.credit == 0


def test_another_order_or_connection_ends_the_credit() -> None:
    recalled, refused, another = with_credit(), with_credit(), with_credit()
    recalled.take(lent(2, 200, 0), counters(), 0.0, idle=False)
    refused.refuse(lent(2, 900, 0))
    another.new_controller()
    assert [plan.draw() for plan in (recalled, refused, another)] == [None, None, None]


def test_a_limit_that_is_in_force_waits_for_no_boundary() -> None:
    plan = with_credit()
    limit = plan.take(lent(2, 200, 100), counters(), 0.0, idle=False)
    assert limit == plan.wanted
    assert plan.waiting is None
    plan.obeyed()
    assert plan.credit == 100


def test_a_draw_that_crosses_an_order_stays_as_far_as_that_allows() -> None:
    plan = with_credit()
    held = drawn(plan)
    assert plan.take(lent(2, 200, 400), counters(), 0.0, idle=False) == held
    plan.obeyed()
    assert plan.credit == 0, "what was drawn is not drawn again"
    plan = with_credit()
    drawn(plan)
    assert plan.take(lent(2, 200, 0), counters(), 0.0, idle=False) is None
    assert plan.waiting is not None, "taken back: at the boundary, as any cut"


def test_an_order_that_waits_can_be_carried_out_on_its_own_credit() -> None:
    plan = with_credit()
    assert plan.take(lent(2, 150, 300), counters(), 0.0, idle=False) is None
    assert drawn(plan) == CpuLimit(45_000, 100_000)
    assert plan.waiting is None
    plan = with_credit()
    assert plan.take(lent(2, 100, 50), counters(), 0.0, idle=False) is None
    assert plan.draw() is None, "what it allows is less than what is in force"
    assert plan.waiting is not None


def test_what_was_drawn_is_not_a_strangers() -> None:
    plan = with_credit()
    assert plan.repair(drawn(plan)) is None
