"""What comes of messages and requests: the engine's decisions, and the control socket's answers."""

from pathlib import Path

import msgspec

from escra_common.errors import EscraError, WireError
from escra_common.framing import Decoder, encode
from escra_common.messages import (
    Bye,
    Container,
    ContainerMemory,
    CpuLimit,
    CpuOrder,
    Hello,
    MemoryLimit,
    MemoryOrder,
    Snapshot,
)
from escra_common.session import Session, hello
from escra_common.units import MAX_BYTES, MAX_MILLICORES
from escra_controller import events, server
from escra_controller.client import MAX_REPLY_BYTES, MAX_REQUEST_BYTES
from escra_controller.control import Request
from escra_controller.engine import Engine
from escra_controller.queries import Desk
from tests.controller.kernels import Memory
from tests.controller.world import MIB, World, spec
from tests.fuzz.expect import readable, sendable
from tests.fuzz.limits import Run
from tests.fuzz.mutators import unpacked
from tests.fuzz.wire import AMPLIFIED, amplified, frame, said


def engine(_: Path) -> Run:
    """What an agent says, valid on the wire and absurd in its meaning, up to the orders that follow."""

    def run(data: bytes) -> None:
        choice, rest = data[0] if data else 0, data[1:]
        agent, controller = Session(hello("agent", "h1"), 0), Session(hello("controller", "c"), 0)
        heart = Engine()
        heart.handle(events.AppsConfigured([spec(), spec("other", 500, 64 * MIB)]), 0)
        try:
            if choice & 1:
                greeting = hello("agent", "h1", cpus=8, memory_bytes=1 << 34)
                _deliver(heart, controller, agent.send(greeting, 0), 0)
                _deliver(heart, controller, agent.send(_SNAPSHOT, 0), 0)
            for number, body in enumerate(unpacked(rest)[:50]):
                now = 0.1 * number
                if (stream := said(agent, body, now)) is None:
                    return
                _deliver(heart, controller, stream, now)
                if choice & 2:
                    _follow(heart, events.Ticked(), now)
        except WireError as error:
            readable(error)

    return run


_LIMIT = CpuLimit(50_000, 100_000)
_SNAPSHOT = Snapshot(
    [
        Container(
            key,
            f"id{key}",
            f"c{key}",
            app,
            f"/c{key}",
            "auto",
            _LIMIT,
            _LIMIT,
            memory=ContainerMemory(held, held),
        )
        for key, app, held in ((1, "shop", MemoryLimit(64 * MIB)), (2, "other", MemoryLimit(None)))
    ]
)


def _deliver(heart: Engine, session: Session, stream: bytes, now: float) -> None:
    """As the controller's server does, without the sockets."""
    for message in session.receive(stream, now):
        match message:
            case Hello():
                pass
            case Snapshot(containers):
                assert session.peer is not None
                if len({container.key for container in containers}) == len(containers):
                    _follow(heart, events.AgentJoined(session.peer, containers), now)
            case Bye(reason):
                _follow(heart, events.AgentLeft("h1", reason), now)
            case _:
                assert session.peer is not None
                _follow(heart, server.event_of(session.peer.host, message), now)


def _follow(heart: Engine, event: events.Event, now: float) -> None:
    for instruction in heart.handle(event, now):
        match instruction:
            case events.SetLimit(_, key, rev, cpu_milli, burst_milli, aligned):
                sendable(CpuOrder(key, rev, cpu_milli, burst_milli, aligned))
            case events.SetMemoryLimit(_, key, rev, max_bytes, margin_bytes):
                sendable(MemoryOrder(key, rev, max_bytes, margin_bytes))
    heart.check()


def control(_: Path) -> Run:
    """Requests of the control socket, up to the frame that answers them."""
    world = _world()
    desk = Desk(world.engine, 0.0)

    def run(data: bytes) -> None:
        nonlocal world, desk
        choice, rest = data[0] if data else 0, data[1:]
        decoder = Decoder(MAX_REQUEST_BYTES, Request)
        stream = frame(amplified(rest, MAX_REQUEST_BYTES) if choice & 0xF0 == AMPLIFIED else rest)
        try:
            for request in decoder.feed(stream):
                if isinstance(request.get("op"), str):
                    rows, orders = desk.answer(request, world.now, 1.7e9)
                    encode({"ok": True, "data": rows}, MAX_REPLY_BYTES)
                    if request["op"] == "set":
                        world.engine.check()
                        for app in world.engine.apps.values():
                            assert 1 <= app.spec.cpu <= MAX_MILLICORES
                            assert 1 <= app.spec.memory <= MAX_BYTES
                        _check_orders(orders)
                        world = _world()
                        desk = Desk(world.engine, 0.0)
        except (EscraError, msgspec.ValidationError) as error:
            readable(error)

    return run


def _check_orders(orders: list[events.Instruction]) -> None:
    for order in orders:
        if isinstance(order, events.SetLimit):
            sendable(CpuOrder(order.key, order.rev, order.cpu_milli, order.burst_milli))
        elif isinstance(order, events.SetMemoryLimit):
            sendable(MemoryOrder(order.key, order.rev, order.max_bytes, order.margin_bytes))


def _world() -> World:
    world = World(spec(), spec("other", 500), spec("empty"))
    world.join("h1")
    for want in (100, 900):
        world.add("h1", want, memory=Memory(used=8 * MIB, limit=64 * MIB))
    world.add("h1", 10, app="other")
    world.run(0.3)
    return world
