"""Pieces of text for a terminal, in exactly so many of its cells.  Pure."""

import unicodedata
from collections.abc import Sequence
from typing import Literal

from escra_controller.render import Tone, bar, clean, sparkline

Look = Tone | Literal["plain", "bold", "chosen"]
# Colour and weight are data here; who paints decides what they look like.
Piece = tuple[str, Look]
Line = list[Piece]


def width_of(text: str) -> int:
    """
    >>> width_of("web"), width_of("倉庫")
    (3, 4)
    """
    return len(text) if text.isascii() else sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """``text`` without what could steer a terminal, cut or filled to ``width`` cells.

    >>> fitted("checkout-7f9", 6), fitted("web", 5), fitted("倉庫", 3), fitted("7%", 4, right=True)
    ('check…', 'web  ', '倉…', '  7%')
    """
    text = clean(text)
    used = width_of(text)
    if used > width:
        kept, used = "", 1
        for char in text:
            if used + _cells(char) > width:
                break
            kept, used = kept + char, used + _cells(char)
        text = kept + "…" if width > 0 else ""
    padding = " " * (width - used)
    return padding + text if right else text + padding


def fitted_line(pieces: Sequence[Piece], width: int) -> Line:
    """Pieces one after the other, cut or filled to ``width`` cells."""
    line, left = Line(), width
    for text, look in pieces:
        text = clean(text)
        taken = min(width_of(text), left)
        if taken:
            line.append((fitted(text, taken), look))
        left -= taken
    return [*line, (" " * left, "plain")] if left else line


def amount_bar(
    used: float | None, limit: float | None, held: float | None, top: float, width: int, *, ascii_only: bool
) -> Line:
    """Use, and what is free up to the limit in force, on a scale to ``top``; close to it stands out."""
    use = used or 0.0
    bound = held if held is not None else limit
    bound = use if bound is None else bound
    full = bar(use, max(bound, use), top or 1.0, width, ascii_only=ascii_only)
    mark = "#" if ascii_only else "█"
    count = full.count(mark)
    look: Look = "warn" if bound and use > 0.9 * bound else "good"
    return [(full[:count], look), (full[count:], "dim")]


def trace_line(
    values: Sequence[float], marked: Sequence[float], top: float, width: int, *, ascii_only: bool
) -> Line:
    """The last ``width`` values, the newest at the right; those whose mark is not 0 stand out."""
    values, marked = list(values)[-width:], list(marked)[-width:]
    text = sparkline(values, max(top, *values, 1e-9) if values else 1.0, ascii_only=ascii_only)
    line: Line = [(" " * (width - len(values)), "plain")]
    for char, mark in zip(text, marked, strict=True):
        look: Look = "warn" if mark else "good"
        if line[-1][1] == look:
            line[-1] = (line[-1][0] + char, look)
        else:
            line.append((char, look))
    return line


def short_cores(value: float | None, missing: str = "-") -> str:
    """At most four characters up to 9999 cores.

    >>> short_cores(0.5), short_cores(12.25), short_cores(128), short_cores(None, "max")
    ('0.50', '12.2', '128', 'max')
    """
    if value is None:
        return missing
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def short_bytes(value: float | None, missing: str = "-") -> str:
    """At most four characters; K, M, G and T are powers of 1024.

    >>> short_bytes(1536), short_bytes(64 << 20), short_bytes(1023 << 20), short_bytes(None, "max")
    ('1.5K', '64M', '1.0G', 'max')
    """
    if value is None:
        return missing
    for unit in ("B", "K", "M", "G"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 9.95 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.0f}T" if value >= 9.95 else f"{value:.1f}T"
