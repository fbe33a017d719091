"""Text for people: tables, bars, times.  Pure; colour is data until somebody paints it."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Tone = Literal["good", "warn", "bad", "dim"]
Paint = Callable[[str, Tone], str]


def plain(text: str, tone: Tone) -> str:
    """The painter without colours."""
    return text


class Cell(NamedTuple):  # made nine times for every container in a table
    text: str
    tone: Tone | None = None


class Column(NamedTuple):
    """``flexible``: may be cut when the table is too wide; numbers never are."""

    title: str
    right: bool = False
    flexible: bool = False


GAP = "  "
LEAST_FLEXIBLE = 6


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell | str]],
    width: int | None = None,
    paint: Paint = plain,
) -> list[str]:
    """Aligned lines, the header first.  ``width`` None cuts nothing, so that pipes see whole names."""
    # Column by column: of a thousand rows there are nine loops then, and not nine thousand calls.
    upright = [list(cells) for cells in zip(*rows, strict=True)] or [[] for _ in columns]
    texts = [[column.title, *_texts(cells)] for column, cells in zip(columns, upright, strict=True)]
    widths = [max(map(len, each)) for each in texts]
    if width is not None:
        _fit(columns, widths, width)
    aligned = [
        _aligned(each, [None, *map(_tone, cells)], room, paint, right=column.right)
        for column, cells, each, room in zip(columns, upright, texts, widths, strict=True)
    ]
    return [GAP.join(parts).rstrip() for parts in zip(*aligned, strict=True)]


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Take from the widest flexible column until the table fits, or nothing is left to take."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    flexible = [index for index, column in enumerate(columns) if column.flexible]
    while excess > 0 and flexible:
        widest = max(flexible, key=lambda index: widths[index])
        if widths[widest] <= LEAST_FLEXIBLE:
            return
        widths[widest] -= 1
        excess -= 1


def _aligned(
    texts: Sequence[str], tones: Sequence[Tone | None], width: int, paint: Paint, *, right: bool
) -> list[str]:
    place = str.rjust if right else str.ljust
    shown = [cut(text, width) for text in texts]
    if paint is plain or not any(tones):
        return [place(text, width) for text in shown]
    return [
        place(text, width).replace(text, paint(text, tone), 1) if tone and text else place(text, width)
        for text, tone in zip(shown, tones, strict=True)
    ]


def _texts(cells: Sequence[Cell | str]) -> list[str]:
    texts = [cell if isinstance(cell, str) else cell.text for cell in cells]
    return texts if "".join(texts).isprintable() else list(map(clean, texts))


def _tone(cell: Cell | str) -> Tone | None:
    return None if isinstance(cell, str) else cell.tone


def clean(text: str) -> str:
    """Names come from other machines: whatever could steer a terminal is replaced.

    >>> clean("web\\x1b[2J")
    'web?[2J'
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def cut(text: str, width: int) -> str:
    """
    >>> cut("checkout-7f9", 6)
    'check…'
    """
    return text if len(text) <= width else text[: width - 1] + "…"


def duration(seconds: float) -> str:
    """
    >>> [duration(s) for s in (0.42, 9.96, 61, 7384, 200_000)]
    ['0.4s', '10s', '1m01s', '2h03m', '2d07h']
    """
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = minutes // 60
    return f"{hours // 24}d{hours % 24:02d}h"


def percent(ratio: float | None) -> str:
    """
    >>> percent(0.256), percent(0.004), percent(0), percent(None)
    ('26%', '<1%', '0%', '-')
    """
    if ratio is None:
        return "-"
    if 0 < ratio < 0.005:
        return "<1%"
    return f"{ratio * 100:.0f}%"


def bar(used: float, limit: float, top: float, width: int, *, ascii_only: bool = False) -> str:
    """What is used, and what the limit leaves free, on a scale from 0 to ``top``.

    >>> bar(0.5, 1.0, 2.0, 8, ascii_only=True)
    '##--    '
    """
    full, free = ("#", "-") if ascii_only else ("█", "░")
    limit_cells = _cells(limit, top, width)
    used_cells = min(_cells(used, top, width), limit_cells)
    return (full * used_cells + free * (limit_cells - used_cells)).ljust(width)


def _cells(value: float, top: float, width: int) -> int:
    return min(width, max(0, round(value / top * width)))


def sparkline(values: Sequence[float], top: float, *, ascii_only: bool = False) -> str:
    """One character per value, from 0 to ``top``.

    >>> sparkline([0, 1, 2], 2), sparkline([0, 1, 2], 2, ascii_only=True)
    ('▁▅█', '_=#')
    """
    steps = "_.-=+*#" if ascii_only else "▁▂▃▄▅▆▇█"
    return "".join(
        steps[min(len(steps) - 1, max(0, round(value / top * (len(steps) - 1))))] for value in values
    )
