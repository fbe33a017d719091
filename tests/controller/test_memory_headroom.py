"""Memory that an agent may take by itself: what it is, that it is counted, and how it comes back."""

import pytest

from escra_controller.events import AgentLeft, Decision
from escra_controller.ledger import Entry
from escra_controller.memory import MemorySettings
from escra_controller.state import MemberKey
from tests.controller.kernels import Kernel
from tests.controller.test_memory import memory_rules, started, world
from tests.controller.world import MIB, World, spec


def entry(w: World, kernel: Kernel, host: str = "h1") -> Entry:
    return w.engine.apps["shop"].memory[MemberKey(host, kernel.info.key)]


def grown(w: World, want_mib: int = 70, growth: int = 0) -> Kernel:
    """One that was granted more, and has headroom since."""
    (web,) = started(w, 60)
    w.grow("h1", web, want_mib * MIB, growth)
    w.settle()
    return web


def test_with_a_grant_goes_headroom_for_one_more_and_it_is_counted() -> None:
    w = world()
    web = grown(w)
    assert (web.memory.held, web.memory.ceiling) == (72 * MIB, 80 * MIB)
    assert w.engine.apps["shop"].memory.counted == 80 * MIB
    w.engine.check()


def test_who_grows_fast_has_headroom_for_that_but_a_quarter_of_what_is_left_at_most() -> None:
    w = world()
    fast = grown(w, growth=256 * MIB)
    assert fast.memory.ceiling - fast.memory.held == 64 * MIB
    w = world()
    faster = grown(w, growth=4096 * MIB)
    free = 1024 * MIB - faster.memory.held
    assert faster.memory.ceiling - faster.memory.held == free // 4


def test_nobody_has_headroom_beyond_its_ceiling_or_of_a_pool_nearly_empty_or_where_it_is_off() -> None:
    w = world()
    (web,) = started(w, 60, most_mib=74)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    assert web.memory.held == 72 * MIB
    assert entry(w, web).headroom == 0

    w = world(memory=84 * MIB)
    assert entry(w, grown(w)).headroom == 0

    w = World(spec(memory=1024 * MIB), memory=MemorySettings(headroom_share=0))
    w.join("h1")
    assert entry(w, grown(w)).headroom == 0


def test_what_was_drawn_is_in_force_and_recorded_and_there_is_headroom_again() -> None:
    w = world()
    web = grown(w)
    w.draw("h1", web, 78 * MIB)
    assert entry(w, web).held == 80 * MIB
    w.settle()
    assert (web.memory.held, web.memory.ceiling, web.memory.used) == (80 * MIB, 88 * MIB, 78 * MIB)
    assert memory_rules(w, web) == ["newcomer", "grow", "grow"]
    (last,) = [d for d in w.decisions if d.resource == "memory"][-1:]
    assert isinstance(last, Decision)
    assert (last.before, last.after) == (72 * MIB, 80 * MIB)
    assert last.cause == "its tasks wait for memory; met out of its headroom"
    assert last.numbers["answer_ms"] == pytest.approx(0.5)
    (member,) = w.engine.members.values()
    assert (member.memory.averted, w.engine.apps["shop"].oom_averted) == (2, 2)
    w.engine.check()


def test_others_in_need_get_the_headroom_and_nobody_is_cut_for_it() -> None:
    w = world(memory=160 * MIB)
    (web,) = started(w, 60)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    (late,) = started(w, 60, limit_mib=68)
    assert entry(w, web).headroom > 0
    free = w.engine.apps["shop"].memory.free
    w.grow("h1", late, 68 * MIB + free + 1 * MIB)
    w.settle()
    assert late.memory.kills == 0
    assert late.memory.used == 68 * MIB + free + 1 * MIB
    assert (web.memory.held, entry(w, web).headroom) == (72 * MIB, 0)
    w.engine.check()


def test_a_newcomer_that_keeps_what_it_came_with_has_it_from_the_headroom_of_others() -> None:
    w = world(memory=200 * MIB)
    (first,) = started(w, 90, limit_mib=100)
    assert entry(w, first).headroom > 0
    (second,) = started(w, 90, limit_mib=100)
    assert (first.memory.held, second.memory.held) == (100 * MIB, 100 * MIB)
    w.engine.check()


def test_headroom_that_nobody_draws_on_comes_back_by_itself() -> None:
    w = world()
    web = grown(w)
    for _ in range(150):
        w.tick()
    assert web.memory.ceiling == 0
    assert w.engine.apps["shop"].memory.counted == web.memory.held
    assert len([d for d in w.decisions if d.resource == "memory"]) == 2, "no limit was changed for it"


def test_what_is_drawn_while_another_order_is_under_way_is_counted_and_no_more_is_made_of_it() -> None:
    w = world()
    web = grown(w)
    w.draw("h1", web, 78 * MIB, rev=web.memory.rev - 1)
    assert entry(w, web).held == 80 * MIB
    assert not w.hosts["h1"].orders
    w.engine.check()


def test_a_host_that_is_away_is_counted_with_all_it_may_take() -> None:
    w = world()
    web = grown(w)
    w.handle(AgentLeft("h1", "gone"))
    web.memory.limit = web.memory.ceiling  # nobody hears of it
    assert w.engine.apps["shop"].memory.counted == w.held_bytes() == 80 * MIB
    w.join("h1")
    w.settle()
    assert (entry(w, web).held, entry(w, web).headroom) == (80 * MIB, 0)
    w.engine.check()
