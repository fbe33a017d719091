"""Quota that an agent may take by itself: what it is, that it is counted, and how it comes back."""

from typing import Any

import pytest

from escra_common.messages import Ack
from escra_controller.events import AgentLeft, AppResized, LimitsApplied, SetLimit
from escra_controller.ledger import Entry
from escra_controller.policy import Settings
from escra_controller.state import MemberKey
from tests.controller.kernels import Kernel
from tests.controller.world import World, spec


def entry(w: World, kernel: Kernel, host: str = "h1") -> Entry:
    return w.engine.apps["shop"].ledger[MemberKey(host, kernel.info.key)]


def steady(w: World, want: int = 300, **info: Any) -> Kernel:
    """One whose limit has come down to what it uses, with headroom above it."""
    if "h1" not in w.hosts:
        w.join("h1", cpus=8)
    kernel = w.add("h1", want, **info)
    w.run(4)
    return kernel


def test_with_a_cut_goes_headroom_out_of_what_is_left_and_it_is_counted() -> None:
    w = World(spec(cpu=3000))
    web = steady(w)
    app = w.engine.apps["shop"]
    assert 300 < web.held < 400
    assert web.ceiling - web.held == entry(w, web).headroom > 0.1 * web.held
    assert app.ledger.counted == web.ceiling
    assert app.ledger.headroom == web.ceiling - web.held
    # An eighth of what nobody holds; some more is free by now than when it was ordered.
    assert app.ledger.headroom <= (3000 - web.held) / 8 < 1.2 * app.ledger.headroom


def test_agents_together_have_a_quarter_of_what_is_left_at_most() -> None:
    w = World(spec(cpu=8000))
    w.join("h1", cpus=8)
    for _ in range(8):
        w.add("h1", 300)
    w.run(4)
    ledger = w.engine.apps["shop"].ledger
    assert 0.15 * (ledger.free + ledger.headroom) < ledger.headroom
    assert ledger.headroom <= 0.25 * (ledger.free + ledger.headroom)


@pytest.mark.parametrize(
    "settings",
    [Settings(headroom_share=0), Settings(burst=0.2), Settings(name="autopilot")],
    ids=["off", "with a burst", "another rule"],
)
def test_nobody_has_headroom_where_it_is_of_no_use(settings: Settings) -> None:
    w = World(spec(cpu=3000), settings=settings)
    steady(w)
    assert w.engine.apps["shop"].ledger.headroom == 0


def test_who_goes_on_working_gets_headroom_as_soon_as_there_is_some() -> None:
    w = World(spec(cpu=1000))
    w.join("h1", cpus=8)
    other, web = w.add("h1", 600), w.add("h1", 300)
    w.run(4)
    assert entry(w, web).headroom == 0
    held, writes = web.held, web.writes
    w.remove("h1", other)
    w.run(0.5)
    assert entry(w, web).headroom > 0
    assert (web.held, web.writes) == (held, writes)


def test_nobody_has_headroom_near_its_ceiling_or_at_its_floor() -> None:
    w = World(spec(cpu=3000))
    web = steady(w, cpu_max_milli=380)
    assert entry(w, web).headroom == 0
    web.want = 0
    w.run(5)
    assert web.held == 50
    assert entry(w, web).headroom == 0


def test_what_was_drawn_is_in_force_and_recorded_and_there_is_headroom_again_without_a_write() -> None:
    w = World(spec(cpu=3000), settings=Settings(upsilon=0.05))
    web = steady(w)
    before, ceiling, writes = web.held, web.ceiling, web.writes
    web.want = 340
    w.alarm("h1", web)
    drawn = next(d for d in w.decisions[::-1] if d.rule == "headroom")
    assert (drawn.before, drawn.after) == (before, ceiling)
    w.settle()
    assert web.held >= ceiling
    assert entry(w, web).headroom > 0
    w.engine.check()
    assert writes + 1 <= web.writes <= writes + 2


def test_the_rule_goes_on_from_the_limit_before_and_nothing_is_cut_for_it() -> None:
    """What an alarm brings is the same, with headroom or without; only some of it comes earlier."""
    limits = []
    for share in (0.0, 0.25):
        w = World(spec(cpu=3000), settings=Settings(headroom_share=share, upsilon=0.3))
        web = steady(w)
        web.want = 1500
        w.alarm("h1", web)
        w.settle()
        limits.append(web.held)
    assert limits[1] == pytest.approx(limits[0], rel=0.1)
    assert limits[1] > 700


def test_an_alarm_that_headroom_has_met_is_met_once() -> None:
    w = World(spec(cpu=3000), settings=Settings(upsilon=0.01))
    web = steady(w)
    before, ceiling = web.held, web.ceiling
    assert ceiling > before + 60 + 0.01 * 3000, "more than the rule would have given"
    w.alarm("h1", web)
    orders = [order for order in w.hosts["h1"].orders if isinstance(order, SetLimit)]
    assert [order.cpu_milli for order in orders] == [ceiling], "only headroom for the next time"
    assert orders[0].headroom_milli > 0
    w.settle()
    assert web.held == ceiling


def test_others_in_need_get_the_headroom_before_anybody_is_cut() -> None:
    w = World(spec(cpu=2000))
    web = steady(w, 600)
    held, lent = web.held, entry(w, web).headroom
    assert lent > 0
    late = steady(w, 300)
    late.want = 2000 - held
    for _ in range(4):
        w.tick()
    assert web.held >= held - 60
    assert late.held > 2000 - held - 60
    assert entry(w, web).headroom == 0
    assert "share" not in w.rules(web)


def test_a_newcomer_without_room_has_it_from_the_headroom_of_others() -> None:
    w = World(spec(cpu=2000))
    web = steady(w, 600)
    assert entry(w, web).headroom > 0
    w.handle(AppResized("shop", cpu=entry(w, web).counted + 20))
    late = w.add("h1", 40, cpu_min_milli=100)
    w.run(0.3)
    assert late.held >= 100
    assert entry(w, web).headroom == 0


def test_what_is_drawn_while_another_order_is_under_way_is_counted_and_no_more_is_made_of_it() -> None:
    w = World(spec(cpu=3000))
    web = steady(w)
    web.want = 100
    while not w.hosts["h1"].orders:
        w.tick(settle=False)
    ceiling = web.ceiling
    w.alarm("h1", web)
    assert web.held == entry(w, web).held == ceiling
    assert "headroom" not in w.rules(web)
    w.settle()
    w.engine.check()


def test_nobody_has_headroom_before_all_hosts_had_time_to_come_back() -> None:
    w = World(spec(cpu=3000), grace_s=5)
    w.now = 10.0
    w.start()
    w.now = 15.5
    web = steady(w)
    assert entry(w, web).headroom > 0
    w.crash()
    w.join("h1", cpus=8)
    w.run(4)
    assert w.engine.apps["shop"].ledger.headroom == 0, "others may hold what seems to be free"
    w.run(4)
    assert entry(w, web).headroom > 0


def test_a_host_that_is_away_is_counted_with_all_it_may_take() -> None:
    w = World(spec(cpu=3000))
    web = steady(w)
    w.handle(AgentLeft("h1", "gone"))
    web.limit = web.ceiling  # nobody hears of it
    w.run(1)
    assert w.engine.apps["shop"].ledger.counted == web.ceiling
    w.join("h1")
    w.settle()
    assert entry(w, web).headroom == 0
    assert entry(w, web).held == web.held
    w.engine.check()


def test_with_an_order_that_is_refused_goes_no_headroom() -> None:
    w = World(spec(cpu=3000))
    web = steady(w)
    held, web.want = web.held, 100
    while not w.hosts["h1"].orders:
        w.tick(settle=False)
    order = w.hosts["h1"].orders.popleft()
    assert isinstance(order, SetLimit)
    assert order.headroom_milli > 0
    web.ceiling = 0
    w.handle(LimitsApplied("h1", [Ack(web.info.key, order.rev, web.in_force(), "too fast")]))
    assert (entry(w, web).counted, entry(w, web).headroom) == (held, 0)


def test_a_write_that_failed_leaves_no_headroom() -> None:
    w = World(spec(cpu=3000))
    web = steady(w)
    refused = Ack(web.info.key, web.rev + 1, web.in_force(), "EPERM")
    web.ceiling = 0
    w.handle(LimitsApplied("h1", [refused]))
    assert entry(w, web).headroom == 0
    assert entry(w, web).counted == web.held
    assert w.rules(web)[-1] == "refused"
    w.engine.check()
