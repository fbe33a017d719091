"""Charts as SVG text.  Pure.

Colours are classes: the page's style sheet, or ``STYLE`` for a picture on its own, says what they look like.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Literal

from escra_controller.render import clean

Series = Sequence[float | None]
Kind = Literal["used", "limit", "original", "omega", "would", "throttled"]

# Where the plot lies in the picture.
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 24
# What a character of the labels is wide at most.
CHAR = 6.6

STYLE = (
    "text{font:11px 'DejaVu Sans','Liberation Sans','Noto Sans',Arial,sans-serif;fill:#57606a}"
    ".grid{stroke:#e4e8ec;stroke-width:1;fill:none}.axis{stroke:#b6bec7;stroke-width:1;fill:none}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    ".used{stroke:#2f6fb3}.limit{stroke:#c2410c}.omega{stroke:#57606a;stroke-dasharray:6 4}"
    ".original{stroke:#8a939d;stroke-dasharray:2 3}.would{stroke:#15803d}.throttled{stroke:#a21caf}"
    ".area{stroke:none;fill-opacity:.22}.area.used{fill:#2f6fb3}.area.throttled{fill:#a21caf}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One value per step; None is a gap.  ``filled`` down to zero."""

    kind: Kind
    values: Series
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Ticks from 0 to ``top`` and how they are written."""

    top: float
    step: float
    label: Callable[[float], str]


def chart(
    lines: Sequence[Line],
    since: float,
    until: float,
    scale: Scale,
    width: int = 480,
    height: int = 163,
    title: str = "",
) -> str:
    """An ``<svg>`` of these lines from ``since`` to ``until``; ``title`` is for screen readers."""
    plot_w, plot_h = width - LEFT - RIGHT, height - TOP - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" viewBox="0 0 {width} {height}"'
        f' aria-label="{escape(clean(title))}">'
    ]
    for tick in range(round(scale.top / scale.step) + 1):
        y = TOP + plot_h * (1 - tick * scale.step / scale.top)
        parts.append(f'<path class="{"grid" if tick else "axis"}" d="M{LEFT} {y:.1f}h{plot_w}"/>')
        label = escape(scale.label(tick * scale.step))
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for at, label in time_ticks(since, until, max(2, int(plot_w / 95))):
        x = LEFT + plot_w * (at - since) / (until - since)
        parts.append(f'<path class="axis" d="M{x:.1f} {TOP + plot_h}v4"/>')
        # No label leaves the picture.
        middle = min(max(x, len(label) * CHAR / 2), width - len(label) * CHAR / 2)
        parts.append(f'<text x="{middle:.1f}" y="{height - 5}" text-anchor="middle">{label}</text>')
    for line in lines:
        parts += _drawn(line, plot_w, plot_h, scale.top)
    return "".join([*parts, "</svg>"])


def _drawn(line: Line, plot_w: float, plot_h: float, top: float) -> list[str]:
    """Each step is as wide as its time: what holds for a step is drawn as a level, not as a slope."""
    steps = len(line.values)
    bottom = TOP + plot_h
    parts = []
    for run in _runs(line.values):
        points = []
        for step, value in run:
            y = TOP + plot_h * (1 - min(value, top) / top)
            points += [
                f"{LEFT + plot_w * step / steps:.1f} {y:.1f}",
                f"{LEFT + plot_w * (step + 1) / steps:.1f} {y:.1f}",
            ]
        if line.filled:
            left, right = points[0].split()[0], points[-1].split()[0]
            parts.append(
                f'<path class="area {line.kind}" d="M{left} {bottom}L{"L".join(points)}L{right} {bottom}Z"/>'
            )
        parts.append(f'<path class="line {line.kind}" d="M{"L".join(points)}"/>')
    return parts


def _runs(values: Series) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for step, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((step, value))
    return [run for run in runs if run]


def scale(unit: Literal["cores", "bytes", "share"], *lines: Series) -> Scale:
    """For all of these lines: about four round steps, the top a little above the largest value."""
    largest = max([value for line in lines for value in line if value is not None], default=0.0)
    if unit == "share":
        step = _round(max(largest, 0.02) / 4)
        return Scale(_top(min(1.0, max(largest, 0.02)), step), step, lambda value: f"{value * 100:.4g}%")
    if unit == "cores":
        step = _round(max(largest, 0.04) / 4)
        digits = max(0, (_mantissa(step) == 2.5) - math.floor(math.log10(step) + 1e-9))
        return Scale(_top(max(largest, 0.04), step), step, lambda value: f"{value:.{digits}f}")
    largest = max(largest, 4096.0)
    power = min(4, int(math.log2(largest) // 10))
    name, factor = ("B", "KiB", "MiB", "GiB", "TiB")[power], float(1 << (10 * power))
    step = _round(largest / factor / 4) * factor
    return Scale(_top(largest, step), step, lambda value: f"{value / factor:.4g} {name}" if value else "0")


def _round(step: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten.

    >>> [_round(value) for value in (0.03, 0.21, 1.0, 6)]
    [0.05, 0.25, 1.0, 10.0]
    """
    power = 10.0 ** math.floor(math.log10(step) + 1e-9)
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= step * (1 - 1e-9))


def _mantissa(step: float) -> float:
    return round(step / 10.0 ** math.floor(math.log10(step) + 1e-9), 6)


def _top(largest: float, step: float) -> float:
    return math.ceil(largest / step * (1 - 1e-9)) * step


_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
DAY_S = 86400


def time_ticks(since: float, until: float, most: int) -> list[tuple[float, str]]:
    """At most ``most`` round instants of local time, with labels as exact as the steps need."""
    length = until - since
    step = next((s for s in _STEPS_S if length / s <= most), None)
    step = step or DAY_S * math.ceil(length / DAY_S / most)
    form = "%H:%M:%S" if step < 60 else "%H:%M" if length <= 1.5 * DAY_S else "%b %d %H:%M"
    if step >= DAY_S:
        form = "%b %d"
    offset = datetime.fromtimestamp(since).astimezone().utcoffset()
    shift = offset.total_seconds() if offset else 0.0
    first = math.ceil((since + shift) / step) * step - shift
    ticks = [first + number * step for number in range(int((until - first) // step) + 1)]
    return [(at, datetime.fromtimestamp(at).strftime(form)) for at in ticks]
