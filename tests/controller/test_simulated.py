"""The simulated kernel keeps the facts that matter to a controller (K2-K8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_common.messages import CpuLimit
from escra_controller.events import ReleaseContainer, SetLimit
from escra_controller.simulated import PERIOD_USEC, Demand, SimulatedContainer, SimulatedHost


def limit(milli: int, burst: int = 0) -> CpuLimit:
    return CpuLimit(milli * 100, PERIOD_USEC, burst * 100)


def container(demand: Demand, held: CpuLimit, key: int = 1) -> SimulatedContainer:
    return SimulatedContainer(key=key, name=f"c{key}", app="app", demand=demand, limit=held)


def host_of(*containers: SimulatedContainer, cpus: int = 2) -> SimulatedHost:
    return SimulatedHost("sim", cpus, containers)


def order(milli: int, rev: int = 1, *, aligned: bool = False) -> SetLimit:
    return SetLimit("sim", 1, rev, milli, 0, aligned)


def test_a_limit_holds_in_every_period_and_throttles_each() -> None:
    busy = container(lambda t: 1.0, limit(300))
    host = host_of(busy)
    used = []
    for period in range(1, 21):
        before = busy.usage_usec
        host.advance(period * 0.1)
        used.append(busy.usage_usec - before)
    assert set(used) == {30_000}
    assert (busy.nr_periods, busy.nr_throttled) == (20, 20)
    assert busy.throttled_usec > 0


def test_below_its_limit_nothing_is_throttled() -> None:
    calm = container(lambda t: 0.2, limit(300))
    host_of(calm).advance(2.0)
    assert calm.usage_usec == pytest.approx(400_000, rel=0.01)
    assert calm.nr_throttled == calm.throttled_usec == 0


def test_an_idle_group_has_no_periods() -> None:
    brief = container(lambda t: 0.1 if t < 0.5 else 0.0, limit(300))
    host_of(brief).advance(5.0)
    # K5: one empty period is still counted, then the timer stops.
    assert brief.nr_periods == 6


def test_a_write_refills_the_quota() -> None:
    """K3: writing every 50 ms lets a group use twice its limit; so does the real kernel."""
    busy = container(lambda t: 1.0, limit(200))
    host = host_of(busy)
    for step in range(1, 41):
        host.obey(order(200 + step % 2, rev=step))
        host.advance(step * 0.05)
    assert busy.usage_usec > 1.8 * 0.2 * 2e6
    assert busy.writes >= 39


def test_a_write_inside_the_period_hides_its_throttling() -> None:
    """K4: the event is lost when a write lifts the throttling and the new quota lasts to the boundary."""
    busy = container(lambda t: 1.0, limit(500))
    host = host_of(busy)
    host.advance(0.08)
    assert busy.throttled
    host.obey(order(600))
    host.advance(0.1)
    assert busy.nr_periods == 1
    assert busy.nr_throttled == 0
    assert busy.throttled_usec > 0


def test_the_same_limit_is_not_written_again() -> None:
    busy = container(lambda t: 1.0, limit(200))
    host = host_of(busy)
    host.obey(order(200))
    assert busy.writes == 0
    applied = host.acknowledge()
    assert applied is not None
    assert applied.acks[0].in_force == limit(200)


def test_unused_quota_carries_over_as_far_as_the_burst() -> None:
    def demand(t: float) -> float:
        return 0.01 if t < 1.0 else 1.0

    used = []
    for burst in (0, 100):
        bursty = container(demand, limit(200, burst))
        host = host_of(bursty)
        host.advance(1.0)
        before = bursty.usage_usec
        host.advance(1.1)
        used.append(bursty.usage_usec - before)
    assert used == [20_000, 30_000]


def test_aligned_orders_wait_for_the_boundary() -> None:
    calm = container(lambda t: 0.1, limit(200))
    host = host_of(calm)
    host.advance(0.05)
    host.obey(order(400, aligned=True))
    host.advance(0.095)
    assert host.acknowledge() is None
    host.advance(0.1)
    applied = host.acknowledge()
    assert applied is not None
    assert applied.acks[0].in_force == limit(400)


def test_an_older_order_changes_nothing() -> None:
    calm = container(lambda t: 0.1, limit(200))
    host = host_of(calm)
    host.obey(order(400, rev=2))
    host.obey(order(300, rev=1))
    assert calm.limit == limit(400)


def test_release_gives_the_original_back() -> None:
    calm = container(lambda t: 0.1, CpuLimit(None, PERIOD_USEC))
    host = host_of(calm)
    host.obey(order(400))
    assert host.snapshot()[0].managed
    host.obey(ReleaseContainer("sim", 1, rev=2))
    (info,) = host.snapshot()
    assert info.in_force == info.original == CpuLimit(None, PERIOD_USEC)
    assert not info.managed


def test_short_cpus_are_shared() -> None:
    pair = [container(lambda t: 2.0, CpuLimit(None, PERIOD_USEC), key) for key in (1, 2)]
    host_of(*pair, cpus=1).advance(1.0)
    assert [each.usage_usec for each in pair] == [500_000, 500_000]


@given(
    demands=st.lists(st.floats(0, 3), min_size=1, max_size=20),
    limits=st.lists(st.integers(10, 4000), min_size=1, max_size=20),
)
def test_no_work_is_lost_and_no_counter_falls(demands: list[float], limits: list[int]) -> None:
    each = container(lambda t: demands[int(t * 10) % len(demands)], limit(limits[0]))
    host = host_of(each)
    last = host.samples().samples[0]
    for tick, milli in enumerate(limits, 1):
        host.obey(order(milli, rev=tick))
        host.advance(tick * 0.1)
        now = host.samples().samples[0]
        assert now.usage_usec >= last.usage_usec
        assert now.nr_periods - last.nr_periods >= now.nr_throttled - last.nr_throttled >= 0
        assert now.throttled_usec >= last.throttled_usec
        last = now
    waiting = each.offered_usec - each.usage_usec - each.shed_usec
    assert -1000 <= waiting <= each.patience_s * max(demands) * 1e6 + 5000 * max(demands) + 1000
