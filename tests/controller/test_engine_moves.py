"""Containers that change their application, and limits of ours that nobody told of: what is counted then."""

import msgspec
import pytest

from escra_common.messages import Ack, Container, CpuLimit
from escra_common.session import hello
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AgentLeft,
    AppsConfigured,
    ContainerAppeared,
    LimitsApplied,
    ReleaseContainer,
    SetLimit,
    SetMemoryLimit,
)
from escra_controller.policy import Settings
from escra_controller.state import MemberKey
from tests.controller.kernels import PERIOD_USEC, Memory
from tests.controller.world import MIB, World, spec


def test_what_its_former_application_ordered_is_counted_where_it_is_now() -> None:
    """Its agent tells of the move, and only then writes the order that was on its way."""
    w = World(spec(cpu=3000), spec(name="other", cpu=1000))
    w.join("h1")
    mover, other = w.add("h1", 100), w.add("h1", 900, app="other")
    w.run(5)
    mover.want = 2500
    while not any(isinstance(order, SetLimit) for order in w.hosts["h1"].orders):
        w.tick(settle=False)
    (raised,) = w.hosts["h1"].orders
    before = mover.held
    assert isinstance(raised, SetLimit)
    assert raised.cpu_milli > before
    mover.info = msgspec.structs.replace(mover.info, app="other")
    w.handle(ContainerAppeared("h1", w.describe(mover)))
    ledger, key = w.engine.apps["other"].ledger, MemberKey("h1", mover.info.key)
    assert key not in w.engine.apps["shop"].ledger
    assert (ledger[key].held, ledger[key].counted) == (before, raised.cpu_milli)
    w.settle()
    w.run(3)
    assert not ledger[key].pending
    assert mover.held + other.held <= 1000, "what it brought is worked off"


def test_what_its_former_application_ordered_of_memory_is_counted_where_it_is_now() -> None:
    w = World(spec(), spec(name="other"))
    w.join("h1")
    mover = w.add("h1", 0, memory=Memory(used=50 * MIB, want=50 * MIB, limit=64 * MIB))
    w.run(1)
    had = mover.memory.held
    w.grow("h1", mover, 300 * MIB)
    assert any(isinstance(order, SetMemoryLimit) for order in w.hosts["h1"].orders)
    mover.info = msgspec.structs.replace(mover.info, app="other")
    w.handle(ContainerAppeared("h1", w.describe(mover)))
    ledger, key = w.engine.apps["other"].memory, MemberKey("h1", mover.info.key)
    assert ledger[key].held == had < ledger[key].counted
    w.settle()
    assert ledger[key].counted - ledger[key].headroom == mover.memory.held > had


def test_an_agent_that_was_killed_takes_an_unchanged_limit_for_one_never_managed() -> None:
    """It stays counted: the kernel holds it, and somebody else would be given it besides."""
    w = World(spec(cpu=1000))
    half = CpuLimit(PERIOD_USEC // 2, PERIOD_USEC)
    for host in ("h1", "h2"):
        w.join(host)
    one, other = (w.add(host, 2000, original=half, in_force=half) for host in ("h1", "h2"))
    w.settle()
    before = w.engine.apps["shop"].ledger.counted
    assert (one.held, before) == (500, one.held + other.held)
    w.part("h1")
    one.managed = False
    w.join("h1")
    assert w.engine.apps["shop"].ledger.counted == before
    assert {m.state for m in w.engine.members.values()} == {"managed"}
    for _ in range(20):
        w.tick()
        assert one.held + other.held <= 1000


@pytest.mark.parametrize("confirmed", [False, True])
def test_what_nobody_confirmed_to_be_released_is_counted_when_its_application_is_back(
    confirmed: bool,
) -> None:
    """A host leaves with a release on its way, of a container whose application was not configured then."""
    none, ours = CpuLimit(None, PERIOD_USEC), CpuLimit(80_000, PERIOD_USEC)
    held = Container(1, "id1", "web", "shop", "/web", "auto", none, ours, managed=True)
    engine = Engine(Settings(), 0.0, 0.0)
    (release,) = [
        order
        for order in engine.handle(AgentJoined(hello("agent", "h1"), [held]), 1.0)
        if isinstance(order, ReleaseContainer)
    ]
    if confirmed:
        engine.handle(LimitsApplied("h1", [Ack(1, release.rev, none)]), 1.1)
    engine.handle(AgentLeft("h1", "the connection broke"), 1.2)
    engine.handle(AppsConfigured([spec(cpu=1000)]), 2.0)
    assert engine.apps["shop"].ledger.counted == (0 if confirmed else 800)
