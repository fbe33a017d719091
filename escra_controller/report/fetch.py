"""Gathers what a report needs, in pieces that one answer can hold.  Asking is an argument."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from escra_controller.past import POINTS_AT_ONCE
from escra_controller.report.model import (
    AppReport,
    ContainerReport,
    Row,
    Span,
    container_report,
    most_important,
)
from escra_controller.storage.containerhistory import LEVELS

Ask = Callable[..., Any]

# Points of each line; with very many containers fewer, so that the answers stay few.
STEPS, LEAST_STEPS = 120, 40
MANY = 400
# Rows are moved on to coarser ones a little late or early.
NEARLY = 0.97
TROUBLE = ("oom-kill", "denied", "refused")
DECISIONS_READ, DECISIONS_SHOWN = 2000, 20


def gather(ask: Ask, app: str | None, since: float, until: float, now: float) -> list[AppReport]:
    """A report of each application that has containers in the history, or of the one named."""
    arguments = {} if app is None else {"app": app}
    found = ask("members", since=since, **arguments)
    if app is not None and not found["members"]:
        ask("ps", app=app)  # there must be such an application
    extent = {name: (first, last) for name, first, last in found["extent"]}
    names = [app] if app is not None else sorted(extent)
    return [_gather_app(ask, name, found["members"], extent.get(name), since, until, now) for name in names]


def _gather_app(
    ask: Ask,
    name: str,
    members: Sequence[tuple[int, str, str, str]],
    extent: tuple[float, float] | None,
    since: float,
    until: float,
    now: float,
) -> AppReport:
    span = _span(extent, since, until, now, len(members))
    if extent is None:
        return AppReport(name, span, [], [], [])
    about = {number: (container, host) for number, app, host, container in members if app == name}
    period = {"app": name, "since": span.since, "until": span.until}
    containers: list[ContainerReport] = []
    for numbers in _pieces(sorted(about), POINTS_AT_ONCE // span.steps):
        answer = ask("points", **period, step_s=span.step_s, first=numbers[0], last=numbers[-1])
        rows: dict[int, list[Row]] = {}
        for row in answer["rows"]:
            named = dict(zip(answer["columns"], row, strict=True))
            rows.setdefault(named["member"], []).append(named)
        for number, points in rows.items():
            if number in about and (made := container_report(*about[number], points, span)):
                containers.append(made)
    answer = ask("app-points", **period, step_s=span.step_s)
    omega = {row[0]: dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]}
    return AppReport(
        name,
        span,
        containers,
        _held([omega.get(step, {}).get("cpu_limit_milli") for step in range(span.steps)], 1000.0),
        _held([omega.get(step, {}).get("memory_limit_bytes") for step in range(span.steps)], 1.0),
        _rules(ask("rules", **period)),
        most_important(_decisions(ask, period), DECISIONS_SHOWN),
    )


def _span(extent: tuple[float, float] | None, since: float, until: float, now: float, members: int) -> Span:
    """From the first data on: a report of a day says nothing by 23 empty hours.

    Steps are whole ones of the history at that age.
    """
    if extent is not None:
        since, until = max(since, extent[0] - LEVELS[0].step_s), min(until, extent[1])
    most = STEPS if members <= MANY else LEAST_STEPS
    kept = next((level for level in LEVELS if now - since <= level.keep_s * NEARLY), LEVELS[-1])
    step_s = float(max(1, -(-(until - since) // (most * kept.step_s))) * kept.step_s)
    steps = max(1, int(-(-(until - since) // step_s)))
    return Span(until - steps * step_s, until, steps)


def _pieces(numbers: list[int], most_apart: int) -> Iterator[list[int]]:
    """Runs of numbers that lie at most so far apart: a piece is asked for by its first and last."""
    piece: list[int] = []
    for number in numbers:
        if piece and number - piece[0] >= most_apart:
            yield piece
            piece = []
        piece.append(number)
    if piece:
        yield piece


def _held(values: list[float | None], unit: float) -> list[float | None]:
    """A limit that a person sets stays until it is another: gaps between two rows are filled."""
    last = next((value for value in values if value is not None), None)
    filled: list[float | None] = []
    for value in values:
        last = last if value is None else value
        filled.append(None if last is None else last / unit)
    return filled


def _rules(rows: Sequence[Sequence[Any]]) -> list[tuple[str, str, int]]:
    times: dict[tuple[str, str], int] = {}
    for _, _, resource, rule, _, count in rows:
        times[resource, rule] = times.get((resource, rule), 0) + count
    return sorted(((r, rule, n) for (r, rule), n in times.items()), key=lambda row: -row[2])


def _decisions(ask: Ask, period: Row) -> list[Row]:
    """The latest, and all the trouble, which may be older."""
    found = {row["number"]: row for row in ask("audit", **period, limit=DECISIONS_READ)}
    for rule in TROUBLE:
        found |= {row["number"]: row for row in ask("audit", **period, rule=rule, limit=50)}
    return list(found.values())
