"""Times as people write them on a command line."""

import re
from datetime import datetime
from typing import Any

import click

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_instant(text: str, now: float) -> float:
    """Unix time of ``90s``, ``15m``, ``1h``, ``2d``, ``1w`` (ago), ``now``, or an ISO time, local by default.

    >>> parse_instant("1.5h", 10_000.0), parse_instant("1970-01-01T01:00Z", 0.0)
    (4600.0, 3600.0)

    Raises ValueError for anything else.
    """
    text = text.strip()
    if text == "now":
        return now
    if match := _AGO.fullmatch(text):
        return max(0.0, now - float(match[1]) * _SECONDS[match[2]])
    try:
        at = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is no time; write how long ago (90s, 15m, 1h, 2d) or when (2026-11-25T10:00)"
        ) from error
    if not 0 <= at <= 1e11:
        raise ValueError(f"{text!r} is too far away")
    return at


class Instant(click.ParamType[float]):
    """An option's time, in unix seconds."""

    name = "time"

    def __init__(self, now: Any) -> None:
        self._now = now

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_instant(str(value), self._now())
        except ValueError as error:
            self.fail(str(error), param, ctx)
