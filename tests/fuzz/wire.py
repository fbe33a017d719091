"""What comes over sockets: frames and messages."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from escra_common.errors import WireError
from escra_common.framing import MAX_FRAME_BYTES, Decoder
from escra_common.messages import (
    MAX_ITEMS,
    Count,
    FromAgent,
    Hello,
    Message,
    Snapshot,
)
from escra_common.session import Session, hello
from escra_controller.client import MAX_REQUEST_BYTES
from escra_controller.control import Request
from tests.fuzz.expect import readable, sendable
from tests.fuzz.limits import Run
from tests.fuzz.mutators import unpacked

_LENGTH = struct.Struct(">I")
_ARRAY = struct.Struct(">BI")
# The highest bits of the first byte; the lower ones are each target's own.
_RAW, AMPLIFIED = 0x80, 0x40
# Only short inputs are made long: the shorter the unit, the more there are of it, and the rest stays fast.
_SHORT = 40


def frames(_: Path) -> Run:
    """The decoder, for a stream cut in pieces as the first byte says."""

    def run(data: bytes) -> None:
        choice, body = data[0] if data else 0, data[1:]
        kind: Any = tuple[Count, FromAgent] if choice & 1 else Request
        limit = MAX_FRAME_BYTES if choice & 1 else MAX_REQUEST_BYTES
        if choice & 0xF0 == AMPLIFIED and len(body) <= _SHORT:
            _decoded([frame(amplified(body, limit))], kind, limit)
            return
        stream = body if choice & _RAW else frame(body)
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


def frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def amplified(body: bytes, limit: int) -> bytes:
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
        yield frame(rest)
        return
    for body in unpacked(rest):
        if choice & AMPLIFIED and len(rest) <= _SHORT and isinstance(body, list) and body:
            body[-1] = body[-1][:1] * MAX_ITEMS if isinstance(body[-1], list) else [body[-1]] * MAX_ITEMS
        if (stream := said(peer, body, 0)) is None:
            return
        yield stream


def said(peer: Session, body: object, now: float) -> bytes | None:
    """None for what cannot be put into a frame."""
    try:
        return peer.frame(body, now)
    except (WireError, TypeError, ValueError, OverflowError):
        return None
