"""The memory pool: growth before the kill, givers, refusals, newcomers, and the way back."""

import msgspec
import pytest

from escra_common.messages import ContainerMemory, MemoryAck, MemoryLimit
from escra_controller.events import (
    AppResized,
    ContainerAppeared,
    MemoryApplied,
    SetMemoryLimit,
)
from escra_controller.queries import Desk
from escra_controller.state import MemberKey, Refused
from tests.controller.kernels import Kernel, Memory
from tests.controller.world import MIB, Host, World, spec


def world(memory: int = 1024 * MIB, hosts: tuple[str, ...] = ("h1",)) -> World:
    made = World(spec(memory=memory))
    for host in hosts:
        made.join(host)
    return made


def started(
    w: World, *used_mib: int, limit_mib: int = 64, host: str = "h1", most_mib: int | None = None
) -> list[Kernel]:
    """Containers that came with a limit and use so much of it, admitted."""
    memories = [Memory(used=u * MIB, want=u * MIB, limit=limit_mib * MIB) for u in used_mib]
    most = most_mib and most_mib * MIB
    kernels = [w.add(host, memory=memory, memory_max_bytes=most) for memory in memories]
    w.settle()
    return kernels


def memory_rules(w: World, kernel: Kernel) -> list[str]:
    return [d.rule for d in w.decisions if d.resource == "memory" and d.key == kernel.info.key]


def test_a_newcomer_keeps_what_it_came_with() -> None:
    w = world()
    (web,) = started(w, 30)
    assert web.memory.held == 64 * MIB
    assert w.engine.apps["shop"].memory.counted == web.memory.ceiling == 72 * MIB


def test_one_that_comes_from_another_application_without_memory_holds_none() -> None:
    w = World(spec(), spec("other"))
    w.join("h1")
    (web,) = started(w, 30)
    web.info = msgspec.structs.replace(web.info, app="other", memory=None)
    web.memory = Memory()
    w.handle(ContainerAppeared("h1", w.describe(web)))
    assert [w.engine.apps[name].memory.counted for name in ("shop", "other")] == [0, 0]
    (member,) = w.engine.apps["other"].members.values()
    assert member.memory.limit is None


def test_one_without_a_limit_gets_its_fair_share_but_never_less_than_it_uses() -> None:
    w = world(memory=1000 * MIB)
    big = w.add("h1", memory=Memory(used=600 * MIB, want=600 * MIB))
    small = w.add("h1", memory=Memory(used=10 * MIB, want=10 * MIB))
    w.settle()
    assert big.memory.held >= 660 * MIB
    assert 18 * MIB <= small.memory.held <= 500 * MIB
    assert w.held_bytes() <= 1000 * MIB


def test_who_wants_more_gets_it_before_the_kill() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    assert web.memory.used == 70 * MIB
    assert web.memory.kills == 0
    assert memory_rules(w, web) == ["newcomer", "grow"]


def test_an_oom_is_averted_by_a_grant_to_one_at_its_limit() -> None:
    w = world()
    waiting, early, full = started(w, 60, 60, 60, most_mib=80)
    w.grow("h1", waiting, 70 * MIB)
    w.settle()
    # Asked well before the limit: nobody was in danger.
    w.hosts["h1"].kernels[early.info.key].memory.want = 61 * MIB
    early.memory.serial += 1
    early.memory.run()
    w.ask("h1", early)
    w.settle()
    w.grow("h1", full, 200 * MIB)
    w.settle()
    rows = {row["name"]: row["oom_averted"] for row in Desk(w.engine, 0).answer({"op": "ps"}, 0, 0)[0]}
    assert memory_rules(w, early) == ["newcomer", "grow"]
    assert (rows[waiting.info.name], rows[early.info.name]) == (1, 0)
    assert "denied" in memory_rules(w, full)
    (app,) = Desk(w.engine, 0).answer({"op": "apps"}, 0, 0)[0]
    assert app["oom_averted"] == sum(rows.values())


def test_a_grant_covers_the_growth_that_was_seen() -> None:
    w = world()
    slow, fast = started(w, 60, 60)
    w.grow("h1", slow, 65 * MIB, growth=1 * MIB)
    w.grow("h1", fast, 65 * MIB, growth=1024 * MIB)
    w.settle()
    assert slow.memory.held == 72 * MIB
    assert fast.memory.held == (64 + 256) * MIB


def test_a_grant_takes_at_most_half_of_what_is_free() -> None:
    w = world(memory=164 * MIB)
    (web,) = started(w, 60)
    w.grow("h1", web, 65 * MIB, growth=1024 * MIB)
    w.settle()
    assert web.memory.held == (64 + 50) * MIB


def test_of_one_that_is_pinned_only_the_memory_is_managed() -> None:
    w = world()
    web = w.add("h1", pinned=True, memory=Memory(used=60 * MIB, want=60 * MIB, limit=64 * MIB))
    w.settle()
    assert (web.memory.managed, web.managed, web.limit) == (True, False, None)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    assert (web.memory.used, web.memory.kills) == (70 * MIB, 0)
    w.run(2)
    assert web.memory.managed


def test_the_same_need_is_answered_once() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 70 * MIB)
    w.ask("h1", web)
    w.settle()
    w.ask("h1", web)
    w.settle()
    assert memory_rules(w, web) == ["newcomer", "grow"]


def test_a_limit_that_the_kernel_rounded_is_not_taken_for_an_old_one() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 70 * MIB, growth=100_000_001)
    w.deliver_order("h1")
    web.memory.limit = web.memory.held // 4096 * 4096
    w.grow("h1", web, 120 * MIB)
    assert w.hosts["h1"].orders, "answered before the acknowledgement of the first raise arrives"


def test_an_empty_pool_is_filled_by_those_who_do_not_use_theirs_on_all_hosts() -> None:
    w = world(memory=300 * MIB, hosts=("h1", "h2"))
    (web,) = started(w, 90, limit_mib=100)
    (near,) = started(w, 10, limit_mib=100)
    (far,) = started(w, 10, limit_mib=100, host="h2")
    w.grow("h1", web, 130 * MIB)
    assert web.memory.paused, "nothing is granted before somebody gave"
    w.settle()
    assert web.memory.used == 130 * MIB
    assert near.memory.held < 100 * MIB
    assert far.memory.held < 100 * MIB
    assert web.memory.kills + near.memory.kills + far.memory.kills == 0


def test_file_cache_is_given_away_but_only_in_need() -> None:
    w = world(memory=200 * MIB)
    web, reader = started(w, 90, 10, limit_mib=100)
    reader.memory.cache = 90 * MIB
    w.run(12)
    assert reader.memory.held == 100 * MIB, "nobody needs it: it stays"
    w.grow("h1", web, 130 * MIB)
    w.settle()
    assert web.memory.used == 130 * MIB
    assert reader.memory.held < 75 * MIB


def test_when_nobody_can_give_exactly_one_is_refused() -> None:
    w = world(memory=200 * MIB)
    web, other = started(w, 96, 96, limit_mib=100)
    w.grow("h1", web, 130 * MIB)
    w.settle()
    assert web.memory.kills == 1
    assert (other.memory.kills, other.memory.used, other.memory.held) == (0, 96 * MIB, 100 * MIB)
    assert memory_rules(w, web)[-2:] == ["denied", "oom-kill"]
    assert "shop has 0B left and nobody else gave any" in next(
        d.cause for d in w.decisions if d.rule == "oom-kill"
    )


def test_nobody_is_refused_while_another_may_give_soon() -> None:
    """One that could give less than it was asked for is asked again, but not at once."""
    w = world(memory=200 * MIB)
    web, other = started(w, 96, 96, limit_mib=100)
    giver = next(m for m in w.engine.members.values() if m.key.key == other.info.key)
    giver.memory.gives_from = w.now + 0.3
    w.grow("h1", web, 130 * MIB)
    w.settle()
    assert "denied" not in memory_rules(w, web)
    w.run(1)
    assert web.memory.kills == 1


def test_a_giver_that_cannot_be_reached_is_not_waited_for_for_ever() -> None:
    w = world(memory=200 * MIB, hosts=("h1", "h2"))
    (web,) = started(w, 90, limit_mib=100)
    started(w, 10, limit_mib=100, host="h2")
    w.grow("h1", web, 130 * MIB)
    for _ in range(8):
        w.tick(settle=False)  # the order to h2 and its answer are stuck
        while w.hosts["h1"].orders or w.hosts["h1"].acks:
            w.deliver_order("h1")
            w.deliver_ack("h1")
    assert web.memory.kills == 1
    assert "in time" in next(d.cause for d in w.decisions if d.rule == "denied")


def test_at_its_own_maximum_it_is_refused_whatever_is_free() -> None:
    w = world()
    (web,) = started(w, 60, most_mib=64)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    assert web.memory.kills == 1
    assert "its own maximum of 64.0MiB" in w.decisions[-1].cause


def test_what_was_not_used_lately_comes_back_and_a_recent_peak_does_not() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 300 * MIB, growth=1024 * MIB)
    w.settle()
    w.run(6)
    assert web.memory.held >= 318 * MIB
    w.grow("h1", web, 20 * MIB)
    w.run(15)
    assert web.memory.held >= 318 * MIB, "it used 300 MiB a moment ago"
    w.run(30)
    assert web.memory.held == 28 * MIB
    assert web.memory.kills == 0


def test_one_in_need_during_a_cut_gets_the_cut_back() -> None:
    w = world(memory=200 * MIB)
    web, other = started(w, 90, 10, limit_mib=100)
    w.grow("h1", web, 130 * MIB)
    assert w.hosts["h1"].orders, "the other is being cut"
    w.grow("h1", other, 99 * MIB)
    w.settle()
    assert web.memory.kills + other.memory.kills <= 1
    assert w.held_bytes() <= 200 * MIB


def test_no_room_is_said_and_a_newcomer_comes_in_when_there_is() -> None:
    w = world(memory=100 * MIB)
    (web,) = started(w, 90, limit_mib=100)
    (late,) = started(w, 30)
    member = w.engine.members[next(k for k in w.engine.members if k.key == late.info.key)]
    assert not late.memory.managed
    assert "no room for its memory" in member.memory.problem
    status, _ = Desk(w.engine, started_at=0.0).answer({"op": "status"}, w.now, 1e9)
    assert status["state"] == "degraded"
    assert any("no room for its memory" in problem for problem in status["problems"])
    w.remove("h1", web)
    w.run(2)
    assert late.memory.managed
    assert member.memory.problem == ""


def test_a_refused_write_is_said_and_the_need_denied() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 70 * MIB)
    order = w.hosts["h1"].orders.pop()
    assert isinstance(order, SetMemoryLimit)
    in_force = MemoryLimit(64 * MIB)
    w.handle(MemoryApplied("h1", [MemoryAck(order.key, order.rev, in_force, 60 * MIB, "above its parent's")]))
    w.settle()
    assert web.memory.kills == 1, "not left hanging"
    assert w.engine.apps["shop"].memory.counted == 64 * MIB


def test_released_memory_is_counted_until_it_is_given_back() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    web.info = msgspec.structs.replace(web.info, mode="off")
    w.handle(ContainerAppeared("h1", w.describe(web)))
    ledger = w.engine.apps["shop"].memory
    assert ledger.counted == 72 * MIB + ledger[MemberKey("h1", web.info.key)].headroom
    web.memory.used = web.memory.want = 60 * MIB
    w.settle()
    assert web.memory.held == 64 * MIB
    assert w.engine.apps["shop"].memory.counted == 0


def test_after_a_restart_of_the_controller_what_is_held_is_counted() -> None:
    w = world()
    (web,) = started(w, 60)
    w.grow("h1", web, 200 * MIB, growth=1024 * MIB)
    w.settle()
    held = web.memory.held
    fresh = World(spec())
    fresh.hosts = w.hosts
    fresh.join("h1")
    assert fresh.engine.apps["shop"].memory.counted == held


def test_omega_cannot_be_set_below_what_is_used() -> None:
    w = world()
    started(w, 60, 60)
    w.run(1)
    with pytest.raises(Refused, match=r"100\.0MiB of memory are less than its 2 containers"):
        w.handle(AppResized("shop", memory=100 * MIB))
    w.handle(AppResized("shop", memory=125 * MIB))
    w.run(3)
    assert w.held_bytes() <= 130 * MIB


def test_many_who_could_each_give_a_little_do_give() -> None:
    """A share of less than a cut that is worth a write is no reason to deny, and so to kill."""
    w = world(memory=5 * 64 * MIB)
    web, *others = started(w, 60, 4, 4, 4, 4)
    w.grow("h1", web, 65 * MIB)
    w.settle()
    assert (web.memory.used, web.memory.kills) == (65 * MIB, 0)
    assert "denied" not in memory_rules(w, web)
    assert all(other.memory.held >= 4 * MIB for other in others)


def test_a_need_from_under_a_cut_is_granted_more_than_it_was_seen_at() -> None:
    """The cut may end early: an order for less than what is in force by then would answer nothing."""
    w = world()
    (web,) = started(w, 20)
    w.handle(AppResized("shop", memory=40 * MIB))  # a cut is on its way
    assert [order.max_bytes for order in w.hosts["h1"].orders if isinstance(order, SetMemoryLimit)]
    w.handle(AppResized("shop", memory=1024 * MIB))
    web.memory.used = web.memory.want = 50 * MIB
    web.memory.serial = 1
    w.ask("h1", web)
    last = w.hosts["h1"].orders[-1]
    assert isinstance(last, SetMemoryLimit)
    assert last.max_bytes > 64 * MIB


def test_one_that_outgrew_its_own_limit_is_admitted_again_at_its_use() -> None:
    """It was raised, released, and could not be given its own limit back."""
    w = world(hosts=())
    w.hosts["h1"] = Host()
    web = w.add("h1", memory=Memory(used=60 * MIB, want=60 * MIB, limit=62 * MIB))
    original = ContainerMemory(MemoryLimit(32 * MIB), MemoryLimit(62 * MIB))
    web.info = msgspec.structs.replace(web.info, memory=original)
    w.join("h1")
    w.settle()
    w.run(3)
    assert web.memory.managed
    assert web.memory.held >= 68 * MIB
