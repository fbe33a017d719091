"""Hosts that are away: counted until they are back, forgotten, or past their lease."""

import pytest

from escra_common.messages import Heartbeat
from escra_controller.absence import LEASE_DRIFT, LEASE_MARGIN_S
from escra_controller.events import AgentReported, AppsConfigured, HostForgotten, Ticked
from escra_controller.state import Refused
from tests.controller.kernels import Kernel, Memory
from tests.controller.world import MIB, World, spec

LEASE_S = 100


def world_with(
    fallback: str, *, confirmed: bool = True, several: bool = False
) -> tuple[World, Kernel, Kernel]:
    """Two hosts whose containers hold most of the application; then ``away`` is parted from it."""
    world = World(spec(cpu=1000, memory=256 * MIB, cpu_min=100, fallback=fallback, lease_s=LEASE_S))
    for host in ("away", "here"):
        world.join(host, several=several)
    away = world.add("away", 2000, memory=Memory(used=32 * MIB, want=32 * MIB))
    here = world.add("here", 0, memory=Memory(used=1 * MIB, want=1 * MIB))
    world.run(5)
    assert away.held > 800
    if confirmed:
        sent = world.engine.hosts["away"].sent
        assert sent is not None
        world.handle(AgentReported("away", Heartbeat(terms=sent.serial)))
    world.part("away")
    here.want = 2000
    return world, away, here


def wait(world: World, seconds: float) -> None:
    """Time passes, and only the agent that is here says something."""
    world.now += seconds
    world.handle(Ticked())
    world.run(3)


JUST_NOT_OVER = LEASE_S * (1 + LEASE_DRIFT) + LEASE_MARGIN_S - 5


@pytest.mark.parametrize(
    ("fallback", "left_milli", "left_bytes"), [("hold", None, None), ("floor", 100, None), ("restore", 0, 0)]
)
def test_after_the_lease_a_host_counts_as_its_terms_say(
    fallback: str, left_milli: int | None, left_bytes: int | None
) -> None:
    world, away, here = world_with(fallback)
    app = world.engine.apps["shop"]
    held, held_bytes = app.ledger.counted_on("away"), app.memory.counted_on("away")
    wait(world, JUST_NOT_OVER - 3)
    assert app.held_on("away") == (held, held_bytes), "not before its time"
    assert here.held <= 1000 - held
    away.limit = 100 if fallback == "floor" else away.limit
    if fallback == "restore":
        away.managed = away.memory.managed = False
    wait(world, 10)
    assert app.ledger.counted_on("away") == (held if left_milli is None else left_milli)
    assert app.memory.counted_on("away") == (held_bytes if left_bytes is None else left_bytes)
    assert (here.held > 1000 - held) == (fallback != "hold")
    world.join("away")
    world.run(3)
    assert app.ledger.counted <= 1000


def test_who_never_said_that_it_has_the_terms_is_counted_for_ever() -> None:
    world, _, here = world_with("restore", confirmed=False)
    held = world.engine.apps["shop"].ledger.counted_on("away")
    wait(world, 100 * LEASE_S)
    assert world.engine.apps["shop"].ledger.counted_on("away") == held
    assert here.held <= 1000 - held


def test_who_may_have_gone_over_to_another_controller_is_counted_until_it_is_forgotten() -> None:
    world, _, here = world_with("restore", several=True)
    held = world.engine.apps["shop"].ledger.counted_on("away")
    wait(world, 100 * LEASE_S)
    assert world.engine.apps["shop"].ledger.counted_on("away") == held
    world.handle(HostForgotten("away"))
    world.run(3)
    assert here.held > 1000 - held


def test_terms_that_changed_while_it_was_away_are_not_counted_on() -> None:
    """It keeps to those it has; when it comes back it is told the others."""
    world, _, _ = world_with("hold")
    held = world.engine.apps["shop"].ledger.counted_on("away")
    world.handle(
        AppsConfigured([spec(cpu=1000, memory=256 * MIB, cpu_min=100, fallback="restore", lease_s=LEASE_S)])
    )
    wait(world, 100 * LEASE_S)
    assert world.engine.apps["shop"].ledger.counted_on("away") == held


def test_a_host_that_is_forgotten_is_free_and_may_come_back() -> None:
    world, away, here = world_with("hold")
    with pytest.raises(Refused, match="here is connected"):
        world.handle(HostForgotten("here"))
    with pytest.raises(Refused, match="away are: away"):
        world.handle(HostForgotten("nobody"))
    away.limit, away.managed, away.memory.managed = None, False, False
    world.handle(HostForgotten("away"))
    assert "away" not in world.engine.hosts
    wait(world, 1)
    assert here.held > 900
    world.join("away")
    world.run(5)
    assert away.managed
    assert away.held + here.held <= 1000


# ---- hosts that another leader does not know -------------------------------------------


def test_hosts_that_only_the_leader_before_has_met_are_waited_for() -> None:
    world = World(spec(cpu=1000), disk={})
    counted = {"hosts": 3, "hosts_epoch": 1}
    world.join("h1", **counted)
    here = world.add("h1", 2000)
    world.run(5)
    assert world.engine.absent_hosts() == {"unknown-1", "unknown-2"}
    assert here.limit is None, "they may hold all of it"
    world.crash()
    assert world.engine.absent_hosts() == {"unknown-1", "unknown-2"}, "they are on disk"
    world.join("h1", **counted)
    world.join("h2", **counted)
    assert world.engine.absent_hosts() == {"unknown-1"}, "one has come, under its name"
    world.handle(HostForgotten("unknown-1"))
    world.run(5)
    assert world.engine.host_count == 2
    assert here.held == 1000


def test_a_new_host_does_not_stand_for_one_that_was_counted() -> None:
    world = World(spec(cpu=1000), disk={})
    world.join("h1", hosts=2, hosts_epoch=1)
    world.join("new")
    assert world.engine.absent_hosts() == {"unknown-1"}


def two_hosts_of_which_one_is_strange() -> tuple[World, Kernel]:
    world = World(spec(cpu=1000), disk={})
    world.join("h1")
    world.join("h2", unmet=True)
    strange = world.add("h2", 2000)
    world.run(5)
    assert strange.limit is None
    return world, strange


def test_who_has_not_met_all_controllers_gets_no_limit_before_it_has() -> None:
    world, strange = two_hosts_of_which_one_is_strange()
    world.handle(AgentReported("h2", Heartbeat(unmet=True)))
    world.run(5)
    assert strange.limit is None
    world.handle(AgentReported("h2", Heartbeat()))
    world.run(5)
    assert strange.held > 0
    world.part("h2")
    world.join("h2", unmet=True)
    assert not world.engine.hosts["h2"].strange, "its agent has only forgotten whom it met"


@pytest.mark.parametrize("away", [False, True])
def test_or_all_hosts_know_of_it(away: bool) -> None:
    world, strange = two_hosts_of_which_one_is_strange()
    for host in ("h1", "h2"):
        world.handle(AgentReported(host, Heartbeat(hosts=2, unmet=True)))
    if away:
        world.part("h1")
    world.run(5)
    assert (strange.limit is None) == away, "one that is away might follow another controller"
