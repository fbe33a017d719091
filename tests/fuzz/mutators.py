"""Changes that keep most of a valid input: a number becomes an absurd one, a field goes, another comes twice.

One input is bytes; each mutator takes one and a source of chance and returns another.  Both ways of
fuzzing use them: hypothesis draws the chance, the coverage-guided one seeds it.
"""

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack

Mutator = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, -1, 7, 999, 1000, 4096, 2**31, 2**32, 2**50 + 1, 10**12 + 1, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = ("", "max", "a", "x" * 300, "\0", "\n", "é", "\u2028", "../..", "/", "nan", "-1", "1e400", "9" * 40)
_LEAVES: tuple[Any, ...] = (*_NUMBERS, -(2**63), *_TEXTS, None, True, False, 0.5, float("nan"), [], {}, [[]])
_WORDS = (*(str(number).encode() for number in _NUMBERS), *(text.encode() for text in _TEXTS))
_MOST_EDITS = 4


def tree(value: Any, random: Random, leaves: Sequence[Any] = _LEAVES) -> Any:
    """The same lists and maps, but for a few edits somewhere in them."""
    for _ in range(random.randint(1, _MOST_EDITS)):
        value = _edit(value, random, leaves)
    return value


def _edit(value: Any, random: Random, leaves: Sequence[Any]) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(sorted(value, key=repr))
        rest = {k: v for k, v in value.items() if k != key}
        match random.randrange(8):
            case 0:
                return rest
            case 1:
                return {**rest, random.choice(_TEXTS): value[key]}
        return {**value, key: _edit(value[key], random, leaves)}
    if isinstance(value, list | tuple) and value and random.random() < 0.9:
        items, at = list(value), random.randrange(len(value))
        match random.randrange(10):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[random.randrange(len(items))])
            case 2:
                items.append(random.choice(leaves))
            case _:
                items[at] = _edit(items[at], random, leaves)
        return items
    if isinstance(value, int) and random.random() < 0.3:
        return value + random.choice((-1, 1, 1 << random.randrange(40)))
    return random.choice(leaves)


def messages(data: bytes, random: Random) -> bytes:
    """One byte of choices, then msgpack bodies one after the other."""
    head, bodies = data[:1] or b"\0", unpacked(data[1:])
    if not bodies:
        return head + packed([random.choice(_LEAVES)])
    at = random.randrange(len(bodies))
    changed = tree(bodies[at], random, (*_LEAVES, b"\xff", msgpack.ExtType(5, b"x")))
    try:
        return head + packed([*bodies[:at], changed, *bodies[at + 1 :]])
    except (ValueError, OverflowError):
        return data


def unpacked(data: bytes) -> list[Any]:
    """The msgpack bodies up to the first that is none."""
    bodies: list[Any] = []
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=1 << 20)
    unpacker.feed(data)
    with contextlib.suppress(ValueError, TypeError, msgpack.UnpackException):
        bodies.extend(unpacker)
    return bodies


def packed(bodies: Sequence[Any]) -> bytes:
    return b"".join(msgpack.packb(body) for body in bodies)


def json_text(data: bytes, random: Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return words(data, random)
    return json.dumps(tree(value, random)).encode()


_TOKEN = re.compile(rb"\s+|\w+|[^\w\s]")


def words(data: bytes, random: Random) -> bytes:
    """Text made of words, numbers and signs: kernel files, labels, TOML."""
    tokens = _TOKEN.findall(data) or [b""]
    for _ in range(random.randint(1, _MOST_EDITS)):
        at = random.randrange(len(tokens)) if tokens else 0
        match random.randrange(6):
            case 0:
                del tokens[at : at + random.randint(1, 3)]
            case 1:
                tokens.insert(at, random.choice(tokens or _WORDS))
            case 2 | 3:
                tokens[at : at + 1] = [random.choice(_WORDS)]
            case 4:
                tokens.insert(at, bytes(random.randrange(256) for _ in range(random.randint(1, 3))))
            case 5:
                cut = random.randrange(len(tokens) + 1)
                tokens[at:at] = tokens[cut : cut + 8]
    return b"".join(tokens)
