import struct
import tracemalloc
from typing import Literal

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_common.errors import WireError
from escra_common.framing import Decoder, encode

bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(bodies, max_size=5), st.data())
def test_any_cut_of_the_stream_gives_the_same_bodies(sent: list[object], data: st.DataObject) -> None:
    stream = b"".join(encode(body) for body in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, received = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += list(decoder.feed(stream[start:end]))
    assert received == sent


def test_every_byte_alone() -> None:
    decoder = Decoder()
    stream = encode(["hello", 1]) + encode(None)
    assert [body for byte in stream for body in decoder.feed(bytes([byte]))] == [["hello", 1], None]


def test_a_claim_of_4_gib_is_refused_before_anything_is_kept() -> None:
    decoder = Decoder(limit=1000)
    with pytest.raises(WireError, match="4294967295 bytes; the limit is 1000"):
        list(decoder.feed(b"\xff\xff\xff\xff" + b"x" * 100_000))
    assert decoder.buffered == 0


def test_our_own_messages_respect_the_limit() -> None:
    with pytest.raises(WireError, match="longer than the limit"):
        encode("x" * 2000, limit=1000)


@given(st.binary(max_size=200))
def test_garbage_is_a_wire_error_and_nothing_else(garbage: bytes) -> None:
    for framed in (garbage, struct.pack(">I", len(garbage)) + garbage):
        try:
            list(Decoder(limit=1000).feed(framed))
        except WireError:
            continue


def test_a_bomb_of_nested_arrays_is_refused() -> None:
    with pytest.raises(WireError, match="not msgpack"):
        list(Decoder().feed(struct.pack(">I", 100_001) + b"\x91" * 100_001))


def test_what_is_refused_is_not_built_first() -> None:
    decoder = Decoder(accepts=tuple[int, str])
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="invalid message: Expected `array` of length 2, got 1000000"):
            list(decoder.feed(struct.pack(">IBI", 1_000_005, 0xDD, 1_000_000) + b"\x90" * 1_000_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # the frame itself, a few times


def test_a_refusal_does_not_quote_a_megabyte() -> None:
    with pytest.raises(WireError) as refused:
        list(Decoder(accepts=Literal["a"]).feed(encode("x" * 1_000_000)))
    assert len(str(refused.value)) < 400


def test_the_oracle_agrees() -> None:
    body = ["samples", [[1, 2, 3]]]
    assert msgpack.unpackb(encode(body)[4:]) == body
