from escra_agent.planner import Plan
from escra_common.messages import CpuLimit, CpuOrder

NONE = CpuLimit(None, 100_000)


def order(rev: int, milli: int, *, aligned: bool = False, burst: int = 0) -> CpuOrder:
    return CpuOrder(1, rev, milli, burst, aligned)


def test_a_plain_order_is_written_at_once_in_the_period_the_kernel_holds() -> None:
    assert Plan(None).take(order(1, 500), NONE, 0, 0.0, idle=False) == CpuLimit(50_000, 100_000)
    short = CpuLimit(None, 20_000)
    assert Plan(None).take(order(1, 500), short, 0, 0.0, idle=False) == CpuLimit(10_000, 20_000)


def test_no_quota_is_below_what_the_kernel_takes() -> None:
    assert Plan(None).take(order(1, 1), NONE, 0, 0.0, idle=False) == CpuLimit(1_000, 100_000)


def test_a_burst_is_never_above_its_quota() -> None:
    limit = Plan(None).take(order(1, 100, burst=900), NONE, 0, 0.0, idle=False)
    assert limit == CpuLimit(10_000, 100_000, 10_000)


def test_an_old_order_is_void() -> None:
    plan = Plan(None)
    plan.take(order(5, 500), NONE, 0, 0.0, idle=False)
    assert plan.take(order(5, 900), NONE, 0, 0.0, idle=False) is None
    assert plan.take(order(4, 900), NONE, 0, 0.0, idle=False) is None
    plan.new_controller()
    assert plan.take(order(1, 900), NONE, 0, 0.0, idle=False) is not None


def test_an_aligned_order_waits_for_the_period_boundary() -> None:
    plan = Plan(None)
    assert plan.take(order(1, 500, aligned=True), NONE, 7, 10.0, idle=False) is None
    assert plan.due(7, 10.05) is None
    assert plan.due(8, 10.06) == CpuLimit(50_000, 100_000)
    assert plan.due(8, 10.07) is None, "once"


def test_a_boundary_that_does_not_come_is_not_waited_for() -> None:
    plan = Plan(None)
    plan.take(order(1, 500, aligned=True), NONE, 7, 10.0, idle=False)
    assert plan.due(7, 10.14) is None
    assert plan.due(7, 10.16) == CpuLimit(50_000, 100_000)


def test_an_idle_container_has_nothing_to_refill() -> None:
    assert Plan(None).take(order(1, 500, aligned=True), NONE, 7, 10.0, idle=True) is not None


def test_a_newer_order_replaces_one_that_waits() -> None:
    plan = Plan(None)
    plan.take(order(1, 300, aligned=True), NONE, 7, 10.0, idle=False)
    assert plan.take(order(2, 800), NONE, 7, 10.0, idle=False) == CpuLimit(80_000, 100_000)
    assert plan.waiting is None


def test_a_new_controller_voids_what_waits() -> None:
    plan = Plan(None)
    plan.take(order(1, 300, aligned=True), NONE, 7, 10.0, idle=False)
    plan.new_controller()
    assert plan.due(8, 11.0) is None


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
