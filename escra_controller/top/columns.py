"""The columns of the three lists, and which of them fit.  Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from escra_controller import views
from escra_controller.render import duration, percent
from escra_controller.top.cells import (
    Line,
    Look,
    amount_bar,
    fitted,
    short_bytes,
    short_cores,
    trace_line,
)
from escra_controller.top.items import Item, Kind, Trace, Use


@dataclass(frozen=True, slots=True)
class Scale:
    """What a full bar means; None: each item's own limit."""

    cpu: float | None
    memory: float | None
    ascii_only: bool = False


Draw = Callable[[Item, Trace, int, Scale], Line]


@dataclass(frozen=True, slots=True)
class Column:
    """``rank``: the highest go first when there is no room, 0 never.  ``sort`` is the key it shows."""

    title: str
    draw: Draw
    least: int
    most: int
    rank: int = 0
    right: bool = False
    sort: str = ""


def _text(of: Callable[[Item], str], look: Callable[[Item], Look] = lambda item: "plain") -> Draw:
    return lambda item, trace, width, scale: [(fitted(of(item), width), look(item))]


def _number(of: Callable[[Item], str], look: Callable[[Item], Look] = lambda item: "plain") -> Draw:
    return lambda item, trace, width, scale: [(fitted(of(item), width, right=True), look(item))]


def _bar(use: Use, top: float | None, width: int, scale: Scale) -> Line:
    own = use.limit or use.held or use.used or 1.0
    return amount_bar(use.used, use.limit, use.held, top or own, width, ascii_only=scale.ascii_only)


def _cpu_bar(item: Item, trace: Trace, width: int, scale: Scale) -> Line:
    return _bar(item.cpu, scale.cpu, width, scale)


def _memory_bar(item: Item, trace: Trace, width: int, scale: Scale) -> Line:
    return _bar(item.memory, scale.memory, width, scale)


def _cpu_trace(item: Item, trace: Trace, width: int, scale: Scale) -> Line:
    top = scale.cpu or item.cpu.limit or 0.0
    return trace_line(trace.cpu, trace.throttled, top, width, ascii_only=scale.ascii_only)


def _memory_trace(item: Item, trace: Trace, width: int, scale: Scale) -> Line:
    top = scale.memory or item.memory.limit or 0.0
    killed = [now > before for before, now in pairwise(trace.oom_kills)]
    marks = [False, *killed] if trace.oom_kills else []
    return trace_line(trace.memory, marks, top, width, ascii_only=scale.ascii_only)


def _marks(item: Item, trace: Trace, width: int, scale: Scale) -> Line:
    """T: throttled now.  K: a task was killed for want of memory since we look."""
    return [
        ("T" if item.throttled else " ", "warn"),
        ("K" if trace.was_killed else " ", "bad"),
    ]


def _state_look(item: Item) -> Look:
    return views.state(item.state).tone or "plain"


def _throttled_look(item: Item) -> Look:
    return "warn" if item.throttled else "plain"


def _oom_look(item: Item) -> Look:
    return "bad" if item.oom_kills else "plain"


_MARKS = Column("", _marks, 2, 2)
_CPU_BAR = Column("CPU", _cpu_bar, 8, 24, sort="cpu")
_CPU_TRACE = Column("PAST", _cpu_trace, 8, 60, rank=1)
_THROTTLED = Column(
    "THR", _number(lambda i: percent(i.throttled), _throttled_look), 4, 4, 0, True, "throttled"
)
_MEMORY_BAR = Column("MEMORY", _memory_bar, 8, 24, sort="memory")
_MEMORY_TRACE = Column("PAST", _memory_trace, 8, 60, rank=2)
_OOM = Column("OOM", _number(lambda i: str(i.oom_kills), _oom_look), 4, 4, 0, True, "oom")
_COUNT = Column("CONT", _number(lambda i: str(i.containers)), 4, 5, 4, True)


_CPU = Column(
    "USE/LIMIT",
    _number(lambda i: f"{short_cores(i.cpu.used)}/{short_cores(i.cpu.limit, 'max')}"),
    9,
    9,
    right=True,
    sort="limit",
)
_MEMORY = Column(
    "USE/LIMIT",
    _number(lambda i: f"{short_bytes(i.memory.used)}/{short_bytes(i.memory.limit, 'max')}"),
    9,
    9,
    right=True,
)
# What is handed out of the limit.
_CPU_HELD = Column("HELD", _number(lambda i: short_cores(i.cpu.held)), 4, 4, 6, True)
_MEMORY_HELD = Column("HELD", _number(lambda i: short_bytes(i.memory.held)), 4, 4, 7, True)


def _seen(item: Item) -> str:
    seen = item.row.get("last_seen_s")
    return "-" if seen is None else duration(seen)


COLUMNS: dict[Kind, tuple[Column, ...]] = {
    "apps": (
        _MARKS,
        Column("NAME", _text(lambda i: i.name), 8, 30, sort="name"),
        _COUNT,
        _CPU_BAR,
        _CPU,
        _CPU_HELD,
        _CPU_TRACE,
        _THROTTLED,
        _MEMORY_BAR,
        _MEMORY,
        _MEMORY_HELD,
        _MEMORY_TRACE,
        _OOM,
    ),
    "containers": (
        _MARKS,
        Column("NAME", _text(lambda i: i.name), 11, 30, sort="name"),
        Column("APP", _text(lambda i: i.app), 8, 16, rank=4, sort="app"),
        Column("HOST", _text(lambda i: i.host), 8, 16, rank=5, sort="host"),
        Column("STATE", _text(lambda i: views.state(i.state).text, _state_look), 8, 15, rank=6, sort="state"),
        _CPU_BAR,
        _CPU,
        _CPU_TRACE,
        _THROTTLED,
        _MEMORY_BAR,
        _MEMORY,
        _MEMORY_TRACE,
        _OOM,
    ),
    "hosts": (
        _MARKS,
        Column("HOST", _text(lambda i: i.name), 8, 30, sort="name"),
        Column("STATE", _text(lambda i: i.state, _state_look), 9, 9, sort="state"),
        _COUNT,
        _CPU_BAR,
        _CPU,
        _CPU_HELD,
        _CPU_TRACE,
        _THROTTLED,
        _MEMORY_BAR,
        _MEMORY,
        _MEMORY_HELD,
        _MEMORY_TRACE,
        _OOM,
        Column("SEEN", _number(_seen), 5, 6, 5, True),
        Column("LATE", _number(lambda i: str(i.row.get("late_ticks", "-"))), 5, 7, 6, True),
        Column("DRIFT", _number(lambda i: str(i.row.get("drift_repairs", "-"))), 5, 7, 7, True),
        Column("VERSION", _text(lambda i: i.row.get("version", "")), 7, 10, rank=8),
    ),
}


def fit(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Those that have room in ``width`` cells, one between two of them, and how wide each is."""
    kept = list(columns)
    while sum(column.least + 1 for column in kept) - 1 > width:
        worst = max(kept, key=lambda column: column.rank)
        if worst.rank == 0:
            break
        kept.remove(worst)
    widths = [column.least for column in kept]
    left = width - sum(widths) - len(widths) + 1
    while left > 0 and (growing := [n for n, column in enumerate(kept) if widths[n] < column.most]):
        for n in growing[:left]:
            widths[n] += 1
        left -= min(left, len(growing))
    return list(zip(kept, widths, strict=True))
