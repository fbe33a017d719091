"""What every target may expect of what it gets."""

from typing import Any

import msgspec

from escra_common.framing import encode

# One line of a log or of a terminal; it may name a path, which may have 4096.
_MOST_CHARACTERS = 5000


def readable(error: Exception) -> None:
    """An error that a person can read, and a log or a frame can carry."""
    text = str(error)
    assert text, f"{type(error).__name__} says nothing"
    assert len(text) <= _MOST_CHARACTERS, f"{type(error).__name__} of {len(text)} characters"
    text.encode()


def sendable(value: Any) -> None:
    """What the agent takes in goes out to the controller, which would cut off the whole host for it."""
    body = msgspec.to_builtins(value)
    encode(body)
    assert msgspec.convert(body, type(value)) == value
