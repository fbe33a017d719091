"""The report as one HTML file: no script, nothing loaded from elsewhere, light, dark and on paper.  Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape

from escra_controller.render import clean, percent
from escra_controller.report import words
from escra_controller.report.model import AppReport, ContainerReport, Row, Use
from escra_controller.report.style import CSS
from escra_controller.report.svg import Kind, Line, chart, scale

MOVERS = 6

_NAMES: dict[Kind, str] = {
    "used": "used",
    "limit": "limit",
    "original": "limit it came with",
    "omega": "application (Ω)",
    "would": "limit with Escra",
    "throttled": "throttled",
}


def page(apps: Sequence[AppReport], made_at: float, version: str) -> str:
    """The whole file.  ``made_at`` in unix time."""
    names = ", ".join(text(app.name) for app in apps)
    made = datetime.fromtimestamp(made_at).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    contents = ""
    if len(apps) > 1:
        links = (f'<a href="#app-{number}">{text(app.name)}</a>' for number, app in enumerate(apps))
        contents = f"<nav>{' '.join(links)}</nav>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>Escra report: {names}</title><style>{CSS}</style></head><body>"
        f'<header><h1>Escra report</h1><p class="dim">Made {made} by escra {text(version)}</p>'
        f"{contents}</header>"
        f"<main>{''.join(_section(number, app) for number, app in enumerate(apps))}</main>"
        f"<footer>{_FOOTNOTES}</footer></body></html>\n"
    )


def text(value: str) -> str:
    """Names come from other machines: no markup, and no character that cannot be seen."""
    return escape(clean(value))


def _section(number: int, app: AppReport) -> str:
    head = (
        f'<section id="app-{number}"><h2>{text(app.name)}</h2><p class="dim">{text(words.when(app.span))}</p>'
    )
    if not app.containers:
        return (
            f"{head}<p>There is no history of its containers in this time. A line for each is written every"
            " few seconds while the controller runs.</p></section>"
        )
    said = "".join(f'<p class="headline">{text(sentence)}</p>' for sentence in words.headlines(app))
    remark = words.uncounted(app)
    said += f'<p class="dim">{text(remark)}</p>' if remark else ""
    tiles = "".join(
        f'<div class="tile"><span>{text(what)}</span><b>{text(value)}</b><span>{text(note)}</span></div>'
        for what, value, note in words.tiles(app)
    )
    return (
        f'{head}{said}<div class="tiles">{tiles}</div>{_charts(app)}{_movers(app)}{_decisions(app)}'
        f"{_containers(app)}</section>"
    )


def _charts(app: AppReport) -> str:
    return (
        '<div class="two">'
        + "".join(figure(title, svg, kinds) for title, svg, kinds in app_charts(app))
        + _rules(app)
        + "</div>"
    )


def app_charts(app: AppReport) -> list[tuple[str, str, list[Kind]]]:
    """(title, SVG, what is in it): CPU, memory, throttling."""
    made = []
    for resource, unit, title in (("cpu", "cores", "CPU in cores"), ("memory", "bytes", "Memory")):
        omega = app.omega_cpu if resource == "cpu" else app.omega_memory
        lines = [
            Line("used", app.total(resource, "used"), filled=True),
            Line("limit", app.total(resource, "limit")),
        ]
        if app.observed:
            lines.append(Line("would", _would_total(app, resource)))
        if app.managed and any(value is not None for value in omega):
            lines.append(Line("omega", omega))
        made.append((title, unit, lines))
    made.append(("Throttled share of periods", "share", [Line("throttled", app.throttled(), filled=True)]))
    return [
        (
            title,
            chart(
                lines,
                app.span.since,
                app.span.until,
                scale(
                    "cores" if unit == "cores" else "bytes" if unit == "bytes" else "share",
                    *(x.values for x in lines),
                ),
                title=f"{app.name}: {title}",
            ),
            [line.kind for line in lines if any(value is not None for value in line.values)],
        )
        for title, unit, lines in made
    ]


def _would_total(app: AppReport, resource: str) -> list[float | None]:
    """What limits would sum to: of observed containers as they would have been, the others as they are."""
    would = app.total(resource, "would")
    if not app.managed:
        return would
    there = AppReport(app.name, app.span, app.managed, [], []).total(resource, "limit")
    return [None if w is None else w + (t or 0.0) for w, t in zip(would, there, strict=True)]


def figure(title: str, svg: str, kinds: Iterable[Kind]) -> str:
    keys = "".join(f'<span class="key {kind}">{_NAMES[kind]}</span>' for kind in kinds)
    return f"<figure><figcaption>{text(title)} {keys}</figcaption>{svg}</figure>"


def _movers(app: AppReport) -> str:
    movers = app.movers(MOVERS)
    if not movers:
        return ""
    cards = "".join(_card(app, container) for container in movers)
    title = "Limits that moved the furthest" if len(app.containers) > 1 else "Limits of its container"
    return f'<h3>{title}</h3><div class="three">{cards}</div>'


def _card(app: AppReport, container: ContainerReport) -> str:
    pictures = []
    for use, unit, name in ((container.cpu, "cores", "CPU in cores"), (container.memory, "bytes", "Memory")):
        lines = [Line("used", use.used, filled=True), Line("limit", use.limit)]
        if container.observed:
            lines.append(Line("would", use.would))
        if use.original is not None and not container.observed:
            there = [use.original if covered else None for covered in container.covered]
            lines.append(Line("original", there))
        axis = scale("cores" if unit == "cores" else "bytes", *(line.values for line in lines))
        title = f"{container.name}: {name}"
        svg = chart(lines, app.span.since, app.span.until, axis, width=380, height=140, title=title)
        pictures.append(f'<div><p class="dim small">{name}</p>{svg}</div>')
    kinds: list[Kind] = ["used", "limit", "would" if container.observed else "original"]
    keys = "".join(f'<span class="key {kind}">{_NAMES[kind]}</span>' for kind in kinds)
    return (
        f'<figure><figcaption><b class="name">{text(container.name)}</b> on {text(container.host)}<br>{keys}'
        f'</figcaption><div class="pictures">{"".join(pictures)}</div></figure>'
    )


def _rules(app: AppReport) -> str:
    if not app.rules:
        return "<figure><figcaption>Decisions by rule</figcaption><p>None in this time.</p></figure>"
    rows = "".join(
        f"<tr><td>{_RESOURCES.get(resource, text(resource))}</td><td>{text(rule)}</td>"
        f'<td class="n">{times:,}</td></tr>'
        for resource, rule, times in app.rules[:8]
    )
    return (
        "<figure><figcaption>Decisions by rule</figcaption><table><thead><tr><th>What</th><th>Rule</th>"
        f'<th class="n">Times</th></tr></thead><tbody>{rows}</tbody></table></figure>'
    )


_RESOURCES = {"cpu": "CPU", "memory": "memory"}


def _decisions(app: AppReport) -> str:
    if not app.decisions:
        return ""
    rows = "".join(_decision(row, days=app.span.length_s > 86400) for row in app.decisions)
    return (
        '<h3>The most important decisions</h3><div class="wide"><table><thead><tr><th>Time</th>'
        '<th>Container</th><th>What</th><th>Rule</th><th class="n">Before</th><th class="n">After</th>'
        "<th>Why</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _decision(row: Row, *, days: bool) -> str:
    at = datetime.fromtimestamp(row["at"]).strftime("%b %d %H:%M:%S" if days else "%H:%M:%S")
    if row["resource"] == "cpu":
        before, after = words.cores(row["before_cores"]), words.cores(row["after_cores"])
    else:
        before, after = words.size(row["before_bytes"]), words.size(row["after_bytes"])
    bad = ' class="bad"' if row["rule"] in ("oom-kill", "denied", "refused") else ""
    cause = text(row["cause"]) + (' <span class="tag">would have</span>' if row.get("observed") else "")
    return (
        f'<tr{bad}><td class="t">{at}</td><td class="name">{text(row["container"])}</td>'
        f"<td>{_RESOURCES.get(row['resource'], '')}</td><td>{text(row['rule'])}</td>"
        f'<td class="n">{before}</td><td class="n">{after}</td><td>{cause}</td></tr>'
    )


def _containers(app: AppReport) -> str:
    observed = bool(app.observed)
    found = sorted(app.containers, key=lambda c: (_natural(c.name), c.host))
    rows = "".join(_container(c, would=observed) for c in found)
    would = '<th class="n">Escra</th>' if app.observed else ""
    span = 5 if app.observed else 4
    columns = (
        f'<th class="n">came with</th><th class="n">limit</th>{would}<th class="n">used</th>'
        '<th class="n">peak</th>'
    )
    return (
        f'<h3>Containers</h3><div class="wide"><table class="containers"><thead><tr><th rowspan="2">Name</th>'
        f'<th rowspan="2">Host</th><th rowspan="2">Mode</th><th colspan="{span}" class="g">CPU, cores</th>'
        f'<th rowspan="2" class="n">Throttled</th><th colspan="{span}" class="g">Memory</th>'
        '<th colspan="2" class="g">OOM</th></tr>'
        f'<tr>{columns}{columns}<th class="n">averted</th><th class="n">kills</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """web-2 comes before web-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(int(part[:18]), "") if part[0] in "0123456789" else (-1, part) for part in parts]


def _container(c: ContainerReport, *, would: bool) -> str:
    def cells(use: Use, write: Callable[..., str]) -> str:
        escra = f'<td class="n">{write(c.mean(use.would), "")}</td>' if would else ""
        return (
            f'<td class="n">{write(use.original)}</td><td class="n">{write(c.mean(use.limit))}</td>{escra}'
            f'<td class="n">{write(c.mean(use.used), "")}</td><td class="n">{write(use.peak)}</td>'
        )

    kills = f'<td class="n bad">{c.oom_kills}</td>' if c.oom_kills else '<td class="n">0</td>'
    return (
        f'<tr><td class="name">{text(c.name)}</td><td class="name">{text(c.host)}</td>'
        f"<td>{'observe' if c.observed else 'auto'}</td>{cells(c.cpu, words.cores)}"
        f'<td class="n">{percent(c.throttled_mean)}</td>{cells(c.memory, words.size)}'
        f'<td class="n">{c.oom_averted}</td>{kills}</tr>'
    )


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_FOOTNOTES = (
    "<p>Limits and use are means over the time in which there are data, peaks the most seen in a tenth of a"
    " second (memory: since the look before). Cores and memory saved are means over the whole time: a"
    " container that was there for half of it counts by half. A container that came without a limit is not"
    " counted in what was saved, nor is one that was without a limit for a part of the time. Throttled is the"
    " share of CPU periods that were cut short. An OOM is averted when memory was granted to"
    " a container that waited at its limit, or would have met it within a tenth of a second.</p>"
)
