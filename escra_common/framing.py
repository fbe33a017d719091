"""Frames: a u32 big-endian length, then that many bytes of msgpack.

Pure: bytes in, objects out.  The length is checked before a byte of the body is kept, so a
peer that claims 4 GiB costs four bytes.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import msgspec

from escra_common.errors import WireError

# Enough for a snapshot of 1,000 containers; anything longer is refused unread.
MAX_FRAME_BYTES = 1 << 20

_LENGTH = struct.Struct(">I")
# A refusal may quote what it refuses, which may be as long as a frame.
_MOST_QUOTED = 300


def encode(body: object, limit: int = MAX_FRAME_BYTES) -> bytes:
    """One frame; raises WireError when it would be longer than the peer accepts."""
    packed: bytes = msgpack.packb(body, default=msgspec.to_builtins)
    if len(packed) > limit:
        raise WireError(f"a message of {len(packed)} bytes is longer than the limit of {limit}")
    return _LENGTH.pack(len(packed)) + packed


class Decoder:
    """Turns a byte stream into message bodies, whatever way the stream was cut.

    ``accepts`` is the type of a body.  It is checked while the body is read, so that nothing is made of
    what is refused: a megabyte of empty arrays is 75 MiB of objects and a quarter of a second.
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES, accepts: Any = Any) -> None:
        self._limit = limit
        self._body = msgspec.msgpack.Decoder(accepts)
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes kept of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield each complete body; raises WireError at the first malformed frame."""
        if self._buffer:
            self._buffer += data
            if self._end_of_frame(self._buffer, 0) is None:
                return
            data, self._buffer = bytes(self._buffer), bytearray()
        # Mostly whole frames arrive: then nothing of them is copied.
        view, start = memoryview(data), 0
        while (end := self._end_of_frame(data, start)) is not None:
            yield self._unpack(view[start + _LENGTH.size : end])
            start = end
        self._buffer += view[start:]

    def _end_of_frame(self, data: bytes | bytearray, start: int) -> int | None:
        """Where the frame that begins at ``start`` ends; None when it is not complete."""
        if len(data) - start < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(data, start)
        if length > self._limit:
            self._buffer.clear()
            raise WireError(f"the peer announced a frame of {length} bytes; the limit is {self._limit}")
        end: int = start + _LENGTH.size + length
        return end if end <= len(data) else None

    def _unpack(self, body: memoryview) -> Any:
        try:
            return self._body.decode(body)
        except msgspec.ValidationError as error:
            raise WireError(f"invalid message: {_short(error)}") from error
        except (ValueError, RecursionError) as error:
            raise WireError(f"not msgpack: {_short(error)}") from error


def _short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}..."
