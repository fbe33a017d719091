"""Credit: counted before it can be drawn, taken back for who needs it, and taken over when it was drawn."""

from typing import Any

import pytest

from escra_controller.credit import Room, credit_for
from escra_controller.events import SetLimit
from escra_controller.policy import Settings
from tests.controller.world import Kernel, World, spec


def swinging(cpu: int = 4000, **settings: Any) -> tuple[World, Kernel]:
    """One container whose limit followed its work down again."""
    w = World(spec(cpu=cpu), settings=Settings(**({"credit": 0.5} | settings)))
    w.lending = True
    w.join("h1")
    c = w.add("h1", 900)
    w.run(3)
    c.want = 100
    w.run(4)
    return w, c


def counted(w: World) -> int:
    return w.engine.apps["shop"].ledger.counted


def test_who_swings_has_credit_up_to_where_it_was_and_the_ledger_counts_it() -> None:
    w, c = swinging()
    assert c.held < 200
    assert 900 <= c.held + c.credit <= 1100
    assert counted(w) == c.held + c.credit


def test_steady_work_has_none() -> None:
    w = World(spec(cpu=4000), settings=Settings(credit=0.5))
    w.lending = True
    w.join("h1")
    c = w.add("h1", 500)
    w.run(5)
    assert c.credit < 100, "the headroom above its use, if that is worth it"


def test_who_rests_has_none() -> None:
    w, c = swinging()
    c.want = 0
    w.run(5)
    assert c.credit == 0
    assert counted(w) == c.held == 50


@pytest.mark.parametrize("off", [{"credit": 0.0}, {"name": "static"}, {"name": "rubik"}])
def test_none_is_given_when_it_is_off_or_by_the_rules_of_others(off: dict[str, Any]) -> None:
    _, c = swinging(**off)
    assert c.credit == 0


def test_what_was_drawn_is_the_limit_and_explained() -> None:
    w, c = swinging()
    before, top = c.held, c.held + c.credit
    c.want = 900
    w.draw("h1", c)
    assert c.held == top
    w.settle()
    (member,) = w.engine.members.values()
    assert member.limit == top
    assert (w.decisions[-1].rule, w.decisions[-1].before, w.decisions[-1].after) == ("credit", before, top)
    w.run(1)
    assert c.held >= 900, "and nothing takes it back while it is used"


def test_a_draw_does_not_count_as_throttling_once_more() -> None:
    w, c = swinging()
    c.want = 900
    w.draw("h1", c)
    drawn = c.held
    w.run(1)
    assert c.held == drawn


def test_who_is_throttled_gets_what_others_only_keep_ready() -> None:
    w, c = swinging(cpu=1200)
    assert c.credit > 0
    other = w.add("h1", 5000)
    w.run(2)
    assert c.credit == 0
    assert other.held + c.held > 1150


def test_credit_taken_back_is_free_when_that_is_acknowledged() -> None:
    w, c = swinging(cpu=1200)
    other = w.add("h1", 5000)
    for _ in range(40):
        w.tick(settle=False)
        for _ in range(3):
            w.deliver_order("h1")
        assert (other.limit or 0) + c.held + c.credit <= 1200
        for _ in range(3):
            w.deliver_ack("h1")


def test_a_host_that_is_away_may_still_draw() -> None:
    w, c = swinging(cpu=1200)
    w.join("h2")
    w.part("h1")
    other = w.add("h2", 5000)
    w.run(3)
    w.draw("h1", c)
    assert c.held + other.held <= 1200
    w.join("h1")
    w.run(2)
    assert c.held + other.held <= 1200


def test_an_agent_that_takes_no_credit_is_not_offered_it_for_ever() -> None:
    w, _ = swinging()
    w.lending = False
    c = w.add("h1", 900)
    w.run(3)
    c.want = 100
    w.run(4)
    offers = [order for order in watched_orders(w, 50) if order.key == c.info.key and order.credit_milli]
    assert not offers
    assert counted(w) <= sum(k.held + k.credit for k in w.hosts["h1"].kernels.values())


def watched_orders(w: World, ticks: int) -> list[SetLimit]:
    seen: list[SetLimit] = []
    for _ in range(ticks):
        w.tick(settle=False)
        seen += [order for order in w.hosts["h1"].orders if isinstance(order, SetLimit)]
        w.settle()
    return seen


def test_near_a_ceiling_there_is_only_what_a_refill_leaves() -> None:
    """Promise 5: limit and refill of any second stay within the ceiling and its tolerance."""
    ceiling, limit, period_s = 500.0, 200, 0.1
    plenty = Room(1.01 * ceiling, limit, 9000, 9000, 9000, 9000)
    credit = credit_for(limit, 10_000, period_s, plenty)
    top = limit + credit
    assert credit > 0
    assert top * (1 + period_s) <= 1.01 * ceiling
    assert limit + top * period_s <= 1.01 * ceiling
    assert credit_for(480, 20, period_s, plenty._replace(own_peak=480)) == 0
