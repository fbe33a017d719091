"""Frames: a u32 big-endian length, then that many bytes of msgpack.

Pure: bytes in, objects out.  The length is checked before a byte of the body is kept, so a
peer that claims 4 GiB costs four bytes.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgpack

from escra_common.errors import WireError
from escra_common.messages import MAX_FRAME_BYTES

_LENGTH = struct.Struct(">I")


def encode(body: object, limit: int = MAX_FRAME_BYTES) -> bytes:
    """One frame; raises WireError when it would be longer than the peer accepts."""
    packed: bytes = msgpack.packb(body)
    if len(packed) > limit:
        raise WireError(f"a message of {len(packed)} bytes is longer than the limit of {limit}")
    return _LENGTH.pack(len(packed)) + packed


class Decoder:
    """Turns a byte stream into message bodies, whatever way the stream was cut."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes kept of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield each complete body; raises WireError at the first malformed frame."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._limit:
                self._buffer.clear()
                raise WireError(f"the peer announced a frame of {length} bytes; the limit is {self._limit}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _unpack(body)


def _unpack(body: bytes) -> Any:
    try:
        # Every count inside a frame is bounded by the frame: msgpack derives its own
        # limits for strings, arrays and maps from the length of the buffer it is given.
        return msgpack.unpackb(body, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not msgpack: {error or type(error).__name__}") from error
