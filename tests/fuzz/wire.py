"""What comes over sockets: frames, messages, what agents report, and the control socket's requests."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from escra_common.errors import EscraError, WireError
from escra_common.framing import Decoder, encode
from escra_common.messages import (
    MAX_FRAME_BYTES,
    MAX_ITEMS,
    Bye,
    Container,
    ContainerMemory,
    Count,
    CpuLimit,
    CpuOrder,
    FromAgent,
    Hello,
    MemoryLimit,
    MemoryOrder,
    Message,
    Snapshot,
)
from escra_common.session import Session, hello
from escra_common.units import MAX_BYTES, MAX_MILLICORES
from escra_controller import events, server
from escra_controller.client import MAX_REPLY_BYTES, MAX_REQUEST_BYTES
from escra_controller.control import Request
from escra_controller.engine import Engine
from escra_controller.queries import Desk
from tests.controller.world import MIB, Memory, World, spec
from tests.fuzz.expect import readable, sendable
from tests.fuzz.limits import Run
from tests.fuzz.mutators import unpacked

_LENGTH = struct.Struct(">I")
_ARRAY = struct.Struct(">BI")
# The highest bits of the first byte; the lower ones are each target's own.
_RAW, _AMPLIFIED = 0x80, 0x40
# Only short inputs are made long: the shorter the unit, the more there are of it, and the rest stays fast.
_SHORT = 40


def frames(_: Path) -> Run:
    """The decoder, for a stream cut in pieces as the first byte says."""

    def run(data: bytes) -> None:
        choice, body = data[0] if data else 0, data[1:]
        kind: Any = tuple[Count, FromAgent] if choice & 1 else Request
        limit = MAX_FRAME_BYTES if choice & 1 else MAX_REQUEST_BYTES
        if choice & 0xF0 == _AMPLIFIED and len(body) <= _SHORT:
            _decoded([_frame(_amplified(body, limit))], kind, limit)
            return
        stream = body if choice & _RAW else _frame(body)
        size = len(stream) // (1 + (choice >> 1 & 7)) + 1
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert _decoded(pieces, kind, limit) == _decoded([stream], kind, limit)

    return run


def _decoded(pieces: list[bytes], kind: Any, limit: int) -> list[bytes]:
    """The bodies encoded again, where NaN is equal to itself, and the error if there was one."""
    decoder, found = Decoder(limit, kind), list[bytes]()
    try:
        for piece in pieces:
            for body in decoder.feed(piece):
                found.append(msgspec.msgpack.encode(body))
            assert decoder.buffered <= limit + _LENGTH.size
    except WireError as error:
        readable(error)
        found.append(str(error).encode())
    return found


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def _amplified(body: bytes, limit: int) -> bytes:
    """An array of as many of these bodies as a frame can hold: small on the wire, large in memory."""
    unit = body[:64] or b"\x90"
    count = (limit - _ARRAY.size) // len(unit)
    return _ARRAY.pack(0xDD, count) + unit * count


def messages(_: Path) -> Run:
    """Validation on both ends of a connection, fresh or well under way."""

    def run(data: bytes) -> None:
        choice, rest = data[0] if data else 0, data[1:]
        role = "agent" if choice & 1 else "controller"
        victim = Session(hello(role, "v"), 0)  # type: ignore[arg-type]
        peer = Session(hello("controller" if choice & 1 else "agent", "p"), 0)
        if choice & 2:
            victim.receive(peer.greeting(0), 0)
            if role == "controller":
                victim.receive(peer.send(Snapshot([]), 0), 0)
        try:
            for stream in _streams(peer, choice, rest):
                for message in victim.receive(stream, 0):
                    if len(stream) < 1 << 14:
                        _check_message(message)
        except WireError as error:
            readable(error)

    return run


def _check_message(message: Message) -> None:
    sendable(message)
    assert not isinstance(message, Hello) or message.role in ("agent", "controller")


def _streams(peer: Session, choice: int, rest: bytes) -> Iterator[bytes]:
    if choice & _RAW:
        yield _frame(rest)
        return
    for body in unpacked(rest):
        if choice & _AMPLIFIED and len(rest) <= _SHORT and isinstance(body, list) and body:
            body[-1] = body[-1][:1] * MAX_ITEMS if isinstance(body[-1], list) else [body[-1]] * MAX_ITEMS
        try:
            yield peer.frame(body, 0)
        except (WireError, TypeError, ValueError, OverflowError):
            return  # more than this end would ever say


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
                _deliver(heart, controller, agent.frame(body, now), now)
                if choice & 2:
                    _follow(heart, events.Ticked(), now)
        except WireError as error:
            readable(error)
        except (TypeError, ValueError, OverflowError) as error:
            if "frame" not in _functions(error):
                raise

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


def _functions(error: BaseException) -> set[str]:
    found, trace = set(), error.__traceback__
    while trace is not None:
        found.add(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return found


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
                _follow(heart, server._event(session.peer.host, message), now)


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
        stream = _frame(_amplified(rest, MAX_REQUEST_BYTES) if choice & 0xF0 == _AMPLIFIED else rest)
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
