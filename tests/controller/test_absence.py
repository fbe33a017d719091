"""Hosts that are away: counted until they are back, forgotten, or past their lease."""

import pytest

from escra_common.messages import Heartbeat
from escra_controller.absence import LEASE_DRIFT, LEASE_MARGIN_S
from escra_controller.events import AgentReported, AppsConfigured, HostForgotten, Ticked
from escra_controller.state import Refused
from tests.controller.world import MIB, Kernel, Memory, World, spec

LEASE_S = 100


def world_with(fallback: str, *, confirmed: bool = True) -> tuple[World, Kernel, Kernel]:
    """Two hosts whose containers hold most of the application; then ``away`` is parted from it."""
    world = World(spec(cpu=1000, memory=256 * MIB, cpu_min=100, fallback=fallback, lease_s=LEASE_S))
    for host in ("away", "here"):
        world.join(host)
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
