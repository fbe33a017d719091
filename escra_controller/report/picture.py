"""The charts of a report as a PNG, for a place that shows no HTML."""

from collections.abc import Iterator, Sequence
from html import escape
from importlib import import_module
from pathlib import Path

from escra_common.errors import EscraError
from escra_controller.render import clean
from escra_controller.report import words
from escra_controller.report.model import AppReport
from escra_controller.report.page import app_charts
from escra_controller.report.svg import STYLE

WIDTH, MARGIN, ZOOM = 1180, 20, 2
CHART_WIDTH, CHART_HEIGHT = 560, 190
MOST_APPS = 12
_FONTS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("~/.fonts").expanduser())


class NoPicture(EscraError):
    """A PNG cannot be made here."""


def png(apps: Sequence[AppReport]) -> bytes:
    """Raises NoPicture, with what to install."""
    try:
        renderer = import_module("resvg_py")
    except ImportError as error:
        raise NoPicture(
            "a PNG needs resvg-py; install it with: pip install 'escra[report]' (the HTML page needs nothing)"
        ) from error
    fonts = [str(file) for folder in _FONTS if folder.is_dir() for file in folder.rglob("*.[to]tf")]
    if not fonts:
        raise NoPicture("a PNG needs a font; install one with: apt-get install fonts-dejavu-core")
    return bytes(renderer.svg_to_bytes(svg_string=picture(apps), zoom=ZOOM))


def picture(apps: Sequence[AppReport]) -> str:
    """One SVG: of each application its name, its sentences and its charts."""
    shown = [app for app in apps if app.containers][:MOST_APPS]
    parts, y = [], MARGIN
    for app in shown:
        lines = list(_lines(app))
        for text, style in lines:
            y += 26
            parts.append(f'<text x="{MARGIN}" y="{y}" style="{style}">{escape(clean(text))}</text>')
        y += 14
        for number, (title, svg, kinds) in enumerate(app_charts(app)):
            x = MARGIN + (number % 2) * (CHART_WIDTH + MARGIN)
            top = y + number // 2 * (CHART_HEIGHT + 34)
            legend = "".join(
                f'<tspan dx="10" style="fill:{_COLOURS[kind]}">{"Ω" if kind == "omega" else kind}</tspan>'
                for kind in kinds
            )
            parts.append(f'<text x="{x}" y="{top + 12}">{escape(clean(title))}{legend}</text>')
            parts.append(
                f'<svg x="{x}" y="{top + 18}" width="{CHART_WIDTH}" height="{CHART_HEIGHT}" {svg[5:]}'
            )
        y += 2 * (CHART_HEIGHT + 34) + MARGIN
    height = y if shown else 60
    if not shown:
        parts.append(f'<text x="{MARGIN}" y="36">No history in this time.</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
    )


def _lines(app: AppReport) -> Iterator[tuple[str, str]]:
    yield f"{app.name}: {words.when(app.span)}", "font-size:17px;font-weight:bold;fill:#1f2328"
    for sentence in words.headlines(app):
        yield sentence, "font-size:14px;fill:#1f2328"


_COLOURS = {
    "used": "#2f6fb3",
    "limit": "#c2410c",
    "original": "#8a939d",
    "omega": "#57606a",
    "would": "#15803d",
    "throttled": "#a21caf",
}
