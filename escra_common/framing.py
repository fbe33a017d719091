"""Streams of frames.

Pure: bytes in, objects out.  The length is checked before a byte of the body is kept, so a
peer that claims 4 GiB costs four bytes.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from escra_common import frame
from escra_common.errors import WireError

# Enough for a snapshot of 1,000 containers; anything longer is refused unread.
MAX_FRAME_BYTES = 1 << 20


def encode(body: object, limit: int = MAX_FRAME_BYTES) -> bytes:
    """One frame; raises WireError when it would be longer than the peer accepts."""
    return frame.encode(body, limit, msgspec.to_builtins)


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
            yield self._unpack(view[start + frame.LENGTH.size : end])
            start = end
        self._buffer += view[start:]

    def _end_of_frame(self, data: bytes | bytearray, start: int) -> int | None:
        """Where the frame that begins at ``start`` ends; None when it is not complete."""
        if len(data) - start < frame.LENGTH.size:
            return None
        try:
            end = start + frame.LENGTH.size + frame.announced(data, self._limit, start)
        except WireError:
            self._buffer.clear()
            raise
        return end if end <= len(data) else None

    def _unpack(self, body: memoryview) -> Any:
        try:
            return self._body.decode(body)
        except msgspec.ValidationError as error:
            raise WireError(f"invalid message: {frame.short(error)}") from error
        except (ValueError, RecursionError) as error:
            raise frame.not_msgpack(error) from error
