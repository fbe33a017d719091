"""The screen of ``escra top``, drawn: a state and a size in, lines out.  Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from escra_controller import views
from escra_controller.render import clean, percent
from escra_controller.top.cells import (
    Line,
    amount_bar,
    fitted,
    fitted_line,
    short_bytes,
    short_cores,
    trace_line,
)
from escra_controller.top.columns import COLUMNS, Column, Scale, fit
from escra_controller.top.items import KINDS, Item, Trace, Use, descends
from escra_controller.top.model import HELP, Top

TITLES = {"apps": "Applications", "containers": "Containers", "hosts": "Hosts"}
# The lines above and below a list.
HEAD, FOOT = 3, 1

_KEYS = {
    "list": "1 2 3 lists  Enter look  / filter  s sort  Space pause  ? help  q quit",
    "detail": "Esc back  Up Down scroll  Space pause  ? help  q quit",
    "help": "any key goes back  q quit",
}
_SORT_NAMES = {"cpu": "CPU", "limit": "CPU limit", "oom": "OOM kills", "app": "application"}
_LABEL = 10


def draw(top: Top, width: int, height: int, *, ascii_only: bool = False) -> list[Line]:
    """Exactly ``height`` lines of ``width`` cells."""
    if top.mode == "help":
        body = _help(width)
    elif top.last is None:
        body = [[("Waiting for the controller.", "plain")]]
    elif top.mode == "detail":
        body = _detail(top, width, height - FOOT - 1, ascii_only)
    else:
        body = _list(top, width, height - FOOT - 1, ascii_only)
    if top.lost:
        body = [_greyed(line) for line in body]
    lines = [_head(top), *body][: max(0, height - FOOT)]
    lines += [[] for _ in range(height - FOOT - len(lines))]
    return [fitted_line(line, width) for line in [*lines, _foot(top)][:height]]


def summary(picture: Mapping[str, Any]) -> str:
    return ", ".join(
        (
            views.counted(len(picture["apps"]), "application"),
            views.counted(len(picture["containers"]), "container"),
            views.counted(len(picture["agents"]), "host"),
        )
    )


def clock(picture: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(picture["at"]).strftime("%H:%M:%S")


def _head(top: Top) -> Line:
    if top.lost:
        return [("no connection", "bad"), (f"; trying again: {top.lost}", "plain")]
    if top.last is None:
        return [("escra", "bold")]
    state, problems = top.last["status"]["state"], top.last["status"]["problems"]
    line: Line = [("escra ", "bold"), (clock(top.last), "plain"), ("  ", "plain")]
    if top.paused:
        line += [(" PAUSED ", "chosen"), ("  ", "plain")]
    line += [(state, "good" if state == "ok" else "bad"), (f"  {summary(top.last)}", "plain")]
    if problems:
        more = f" (+{len(problems) - 1}: escra status)" if len(problems) > 1 else ""
        line += [("  ", "plain"), (f"{problems[0]}{more}", "bad")]
    return line


def _foot(top: Top) -> Line:
    if top.filtering:
        return [("filter: ", "bold"), (top.words, "plain"), ("_", "chosen"), ("  Enter keep  Esc end", "dim")]
    return [(_KEYS[top.mode], "dim")]


def _greyed(line: Line) -> Line:
    return [(text, "dim") for text, _ in line]


# ---- lists ------------------------------------------------------------------------------------


def _list(top: Top, width: int, height: int, ascii_only: bool) -> list[Line]:
    items, everything = top.items(), top.all_items()
    columns = fit(COLUMNS[top.kind], width)
    lines = [_tabs(top, len(items), len(everything), ascii_only), _titles(columns, top, ascii_only)]
    if not items:
        return [*lines, [(_nothing(top, bool(everything)), "dim")]]
    scale = _scale(items, top, ascii_only)
    cursor = top.cursor(items)
    room = max(1, height - len(lines))
    first = max(0, min(cursor - room // 2, len(items) - room))
    for row, item in enumerate(items[first : first + room], first):
        line = _row(columns, item, top.past.of(item), scale)
        lines.append([("".join(text for text, _ in line), "chosen")] if row == cursor else line)
    return lines


def _tabs(top: Top, shown: int, of: int, ascii_only: bool) -> Line:
    line: Line = []
    for number, kind in enumerate(KINDS, 1):
        text = f"[{number} {TITLES[kind]}]" if kind == top.kind else f" {number} {TITLES[kind]} "
        line += [(text, "bold" if kind == top.kind else "plain"), (" ", "plain")]
    line += [(f"  by {_SORT_NAMES.get(top.sort, top.sort)} {_arrow(top, ascii_only)}", "plain")]
    if top.within is not None:
        what = "application" if top.within[0] == "apps" else "host"
        line += [(f"  {what} {top.within[1]}", "bold")]
    if top.words:
        line += [(f"  filter: {top.words} ({shown} of {of})", "bold")]
    return line


def _titles(columns: Sequence[tuple[Column, int]], top: Top, ascii_only: bool) -> Line:
    line: Line = []
    for column, width in columns:
        title = column.title
        if column.sort == top.sort:
            title = f"{title[: width - 1]}{_arrow(top, ascii_only)}"
        line += [(fitted(title, width, right=column.right), "bold"), (" ", "bold")]
    return line[:-1]


def _arrow(top: Top, ascii_only: bool) -> str:
    down, up = ("v", "^") if ascii_only else ("▼", "▲")
    return down if descends(top.sort, reverse=top.reverse) else up


def _row(columns: Sequence[tuple[Column, int]], item: Item, trace: Trace, scale: Scale) -> Line:
    line: Line = []
    for column, width in columns:
        line += [*column.draw(item, trace, width, scale), (" ", "plain")]
    return line[:-1]


def _scale(items: Sequence[Item], top: Top, ascii_only: bool) -> Scale:
    """One for all, so that bars can be compared: the largest limit in the list."""
    if top.own_scale:
        return Scale(None, None, ascii_only)
    return Scale(
        max(_extent(item.cpu) for item in items), max(_extent(item.memory) for item in items), ascii_only
    )


def _extent(use: Use) -> float:
    return max(use.limit or 0.0, use.held or 0.0, use.used or 0.0)


def _nothing(top: Top, filtered: bool) -> str:
    if filtered:
        return f"Nothing has {top.words} in its name, application, host or state; Esc ends the filter."
    return {
        "apps": "No application: the controller's configuration has no [apps.NAME].",
        "containers": "No container: label one with escra.app=NAME, or name a cgroup in an agent's file.",
        "hosts": "No host: no agent has connected yet.",
    }[top.kind]


# ---- one container ---------------------------------------------------------------------------


def _detail(top: Top, width: int, height: int, ascii_only: bool) -> list[Line]:
    item = top.detail()
    if item is None:
        return [[("This container has gone; Esc goes back.", "warn")]]
    cell = views.state(item.state)
    lines: list[Line] = [
        [
            (item.name, "bold"),
            ("  ", "plain"),
            (cell.text, cell.tone or "plain"),
            (f"  application {item.app or '-'}, host {item.host}", "plain"),
        ]
    ]
    lines.append([(f"cgroup {item.row['cgroup']}", "plain")])
    lines += [
        [("problem: ", "bad"), (text, "plain")]
        for text in (item.row["problem"], item.row["memory"]["problem"])
        if text
    ]
    about = top.explained
    lines += _pictured(item, top.past.of(item), about or {}, width, ascii_only)
    lines.append([])
    if about is None or top.last is None:
        return [*lines, [("Asking for its decisions.", "dim")]]
    newest_first = list(reversed(about["decisions"]))
    if not newest_first:
        return [*lines, [("No decision about its limits yet.", "plain")]]
    titles, *rows = views.decisions(newest_first, top.last["at"])
    room = max(1, height - len(lines) - 1)
    top.scroll = min(top.scroll, max(0, len(rows) - room))
    shown = rows[top.scroll : top.scroll + room]
    lines.append([(titles, "bold")])
    return lines + [[(clean(row), "plain")] for row in shown]


def _pictured(item: Item, trace: Trace, about: Mapping[str, Any], width: int, ascii_only: bool) -> list[Line]:
    """Bars, bounds, and the past of use and limit, as wide as the screen."""
    room = max(8, width - _LABEL)
    lines: list[Line] = []
    for title, use, numbers, values, limits, marks in (
        ("CPU", item.cpu, short_cores, trace.cpu, trace.cpu_limit, trace.throttled),
        ("Memory", item.memory, short_bytes, trace.memory, trace.memory_limit, ()),
    ):
        highest = max([_extent(use), *values, *limits])
        text = f" {numbers(use.used, '-')} of {numbers(use.limit, 'max')}"
        bar = amount_bar(
            use.used, use.limit, None, highest, max(8, min(40, room - len(text))), ascii_only=ascii_only
        )
        no_marks = [0.0] * len(values)
        lines.append([(fitted(title, _LABEL), "bold"), *bar, (text, "plain"), *_mark(title, item)])
        lines.append(_bounds(about.get(title.lower(), {}), title))
        for label, past, marked in (("used", values, marks or no_marks), ("limit", limits, no_marks)):
            drawn = trace_line(past, list(marked), highest, room, ascii_only=ascii_only)
            lines.append([(fitted(f"  {label}", _LABEL), "dim"), *drawn])
    return lines


def _mark(title: str, item: Item) -> Line:
    if title == "CPU" and item.throttled:
        return [(f"  throttled {percent(item.throttled)}", "warn")]
    if title == "Memory" and item.oom_kills:
        return [(f"  {views.counted(item.oom_kills, 'OOM kill')}", "bad")]
    return []


def _bounds(standing: Mapping[str, Any], title: str) -> Line:
    """What one container may have; empty while that is not known."""
    if not standing:
        return []
    if title == "CPU":
        amounts = [short_cores(standing[f"{name}_cores"]) for name in ("floor", "ceiling", "fair", "counted")]
    else:
        amounts = [short_bytes(standing[f"{name}_bytes"]) for name in ("floor", "ceiling", "fair", "counted")]
    floor, ceiling, fair, counted = amounts
    text = f"floor {floor}  ceiling {ceiling}  fair share {fair}  counted in the pool {counted}"
    return [(" " * _LABEL, "plain"), (text, "dim")]


# ---- help -------------------------------------------------------------------------------------


def _help(width: int) -> list[Line]:
    lines: list[Line] = [[]]
    lines += [[(fitted(f"  {keys}", 17), "bold"), (what, "plain")] for keys, what in HELP]
    lines += [
        [],
        [("  Bars: use, and what is free up to the limit in force. ", "plain"), ("Yellow", "warn")],
        [("  is above nine tenths of it; in the past of the CPU it is a throttled second.", "plain")],
        [("  T", "warn"), (" throttled now   ", "plain"), ("K", "bad")],
    ]
    lines[-1] += [(" a task was killed for want of memory since this was started", "plain")]
    lines += [[("  THR: share of periods cut short; of several containers, the worst one's.", "plain")]]
    return lines
