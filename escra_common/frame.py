"""One frame: a u32 big-endian length, then that many bytes of msgpack.

Pure.  Apart from ``framing``, which reads streams of them, because a command that asks one question has no
other use for msgspec: loading that takes longer than printing the answer.
"""

import struct
from collections.abc import Callable
from typing import Any

import msgpack

from escra_common.errors import WireError

LENGTH = struct.Struct(">I")
# A refusal may quote what it refuses, which may be as long as a frame.
_MOST_QUOTED = 300


def encode(body: object, limit: int, default: Callable[[Any], Any] | None = None) -> bytes:
    """One frame; raises WireError when it would be longer than the peer accepts.

    ``default`` makes plain values of what msgpack does not know.
    """
    packed: bytes = msgpack.packb(body, default=default)
    if len(packed) > limit:
        raise WireError(f"a message of {len(packed)} bytes is longer than the limit of {limit}")
    return LENGTH.pack(len(packed)) + packed


def announced(head: bytes | bytearray, limit: int, offset: int = 0) -> int:
    """How long the body is that follows a length; raises WireError above ``limit``."""
    length: int = LENGTH.unpack_from(head, offset)[0]
    if length > limit:
        raise WireError(f"the peer announced a frame of {length} bytes; the limit is {limit}")
    return length


def decode(body: bytes) -> Any:
    """Whatever is in a frame; raises WireError when that is not msgpack."""
    try:
        return msgpack.unpackb(body)
    except (ValueError, RecursionError) as error:
        raise not_msgpack(error) from error


def not_msgpack(error: Exception) -> WireError:
    return WireError(f"not msgpack: {short(error)}")


def short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}..."
