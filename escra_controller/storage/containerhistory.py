"""The history of every container: its table, how it gets coarser with age, and how it is read.

A row says what happened in a span of time: means as sums over its seconds, so that rows add up to coarser
ones exactly.  Every row is at one level only; each step of a level is made of the rows of the level before,
one instant at a time as new ones come, so that no transaction moves more than a few times what it adds.

An instant takes about 85 bytes per container: 5,760 of them are kept, 49 MB for 100 containers.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from escra_controller.storage.values import ContainerRow

HOUR_S, DAY_S = 3600, 86400


@dataclass(frozen=True, slots=True)
class Level:
    """Rows of ``step_s`` seconds, kept for ``keep_s``; the first level's are as they come."""

    step_s: int
    keep_s: int


LEVELS = (Level(5, 2 * HOUR_S), Level(60, DAY_S), Level(900, 30 * DAY_S))
# Instants of a level and application that one transaction moves on; one comes per transaction.
MOVED_AT_ONCE = 2
# A container's name is kept as long as a row may name it; its last time is noted this seldom.
NAME_S, NOTE_S = LEVELS[-1].keep_s + HOUR_S, HOUR_S

# How two rows become one.  Sums with a NULL are NULL: a container without a limit for a part has none.
_SUM, _MAX, _LAST = "{0} = {0} + excluded.{0}", "{0} = max({0}, excluded.{0})", "{0} = excluded.{0}"
_COLUMNS = {
    "span_ms": _SUM,
    "observed": _MAX,
    "cpu_limit": _SUM,
    "cpu_used": _SUM,
    "cpu_peak": _MAX,
    "cpu_original": _LAST,
    "throttled": _SUM,
    "throttled_peak": _MAX,
    "memory_limit": _SUM,
    "memory_used": _SUM,
    "memory_peak": _MAX,
    "memory_original": _LAST,
    "oom_events": _SUM,
    "oom_kills": _SUM,
    "oom_averted": _SUM,
    "would_cpu": _SUM,
    "would_memory": _SUM,
    "would_throttled": _SUM,
}

# ``cpu_...`` in millicores, sums in millicore-seconds; ``throttled...`` in thousandths, sums times seconds.
TABLES = f"""
CREATE TABLE containers (
    id INTEGER PRIMARY KEY, app TEXT, host TEXT, key INTEGER, name TEXT, seen INTEGER,
    UNIQUE (app, host, key, name)
);
CREATE TABLE container_history (
    level INTEGER, app TEXT, at INTEGER, member INTEGER, {", ".join(f"{name} INTEGER" for name in _COLUMNS)},
    PRIMARY KEY (level, app, at, member)
) WITHOUT ROWID;
"""

_ADD = f"ON CONFLICT DO UPDATE SET {', '.join(rule.format(name) for name, rule in _COLUMNS.items())}"
_INSERT = f"INSERT INTO container_history VALUES ({', '.join('?' * (4 + len(_COLUMNS)))}) {_ADD}"
_MOVE = (
    f"INSERT INTO container_history SELECT ?, app, ?, member, {', '.join(_COLUMNS)} FROM container_history"
    f" WHERE level = ? AND app = ? AND at = ? {_ADD}"
)


class ContainerNames:
    """The numbers of the containers that rows are about, for one connection."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int, str], tuple[int, float]] = {}
        self._pruned_at = float("-inf")

    def number(self, connection: sqlite3.Connection, row: ContainerRow) -> int:
        name = (row.app, row.host, row.key, row.container)
        number, seen = self._known.get(name, (0, float("-inf")))
        if abs(row.at - seen) >= NOTE_S:
            connection.execute(
                "INSERT INTO containers VALUES (NULL, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET seen = excluded.seen",
                (*name, int(row.at)),
            )
            (number,) = connection.execute(
                "SELECT id FROM containers WHERE app = ? AND host = ? AND key = ? AND name = ?", name
            ).fetchone()
            self._known[name] = (number, row.at)
        return number

    def prune(self, connection: sqlite3.Connection, now: float) -> None:
        """Once in a while, for it looks at all: drop those that no row names, and forget who is gone."""
        if abs(now - self._pruned_at) < NOTE_S:
            return
        self._pruned_at = now
        connection.execute("DELETE FROM containers WHERE seen < ?", (int(now - NAME_S),))
        self._known = {name: known for name, known in self._known.items() if now - known[1] < 2 * NOTE_S}

    def forget(self) -> None:
        """What was numbered in a transaction that failed has no number."""
        self._known.clear()


def add(connection: sqlite3.Connection, names: ContainerNames, rows: Sequence[ContainerRow]) -> None:
    connection.executemany(
        _INSERT, [(0, row.app, int(row.at), names.number(connection, row), *_sums(row)) for row in rows]
    )
    if rows:
        names.prune(connection, rows[-1].at)


def age(connection: sqlite3.Connection, now: float) -> None:
    """Move what is old enough on to the next level, and remove what is older than all of them."""
    for (app,) in connection.execute("SELECT DISTINCT app FROM containers").fetchall():
        for number, level in enumerate(LEVELS):
            for _ in range(MOVED_AT_ONCE):
                (oldest,) = connection.execute(
                    "SELECT min(at) FROM container_history WHERE level = ? AND app = ?", (number, app)
                ).fetchone()
                if oldest is None or oldest >= now - level.keep_s:
                    break
                if number + 1 < len(LEVELS):
                    step_s = LEVELS[number + 1].step_s
                    end = -(-oldest // step_s) * step_s
                    connection.execute(_MOVE, (number + 1, end, number, app, oldest))
                connection.execute(
                    "DELETE FROM container_history WHERE level = ? AND app = ? AND at = ?",
                    (number, app, oldest),
                )


def _sums(row: ContainerRow) -> tuple[int | None, ...]:
    def over(amount: float | None) -> int | None:
        return None if amount is None else round(amount * row.span_s)

    def thousandths(ratio: float | None) -> float | None:
        return None if ratio is None else ratio * 1000

    return (
        round(row.span_s * 1000),
        row.observed,
        over(row.cpu_limit_milli),
        over(row.cpu_used_milli),
        round(row.cpu_peak_milli),
        row.cpu_original_milli,
        over(thousandths(row.throttled_ratio)),
        round(row.throttled_peak * 1000),
        over(row.memory_limit_bytes),
        over(row.memory_used_bytes),
        row.memory_peak_bytes,
        row.memory_original_bytes,
        row.oom_events,
        row.oom_kills,
        row.oom_averted,
        over(row.would_cpu_milli),
        over(row.would_memory_bytes),
        over(thousandths(row.would_throttled)),
    )


# ---- reading -------------------------------------------------------------------------


def _mean(name: str, unit: float = 1.0) -> str:
    """None where the container had none at some time."""
    return (
        f"CASE WHEN count({name}) = count(*) THEN"
        f" round(total({name}) / (total(span_ms) / 1000) / {unit}, 4) END"
    )


# The columns of ``read_points`` after the container's number and the step's: see ContainerRow.
_POINT = {
    "span_s": "total(span_ms) / 1000",
    "observed": "max(observed)",
    "cpu_limit_milli": _mean("cpu_limit"),
    "cpu_used_milli": _mean("cpu_used"),
    "cpu_peak_milli": "max(cpu_peak)",
    "cpu_original_milli": "max(cpu_original)",
    "throttled_ratio": _mean("throttled", 1000.0),
    "throttled_peak": "max(throttled_peak) / 1000.0",
    "memory_limit_bytes": _mean("memory_limit"),
    "memory_used_bytes": _mean("memory_used"),
    "memory_peak_bytes": "max(memory_peak)",
    "memory_original_bytes": "max(memory_original)",
    "oom_events": "sum(oom_events)",
    "oom_kills": "sum(oom_kills)",
    "oom_averted": "sum(oom_averted)",
    "would_cpu_milli": _mean("would_cpu"),
    "would_memory_bytes": _mean("would_memory"),
    "would_throttled": _mean("would_throttled", 1000.0),
}
POINT = ("member", "step", *_POINT)


def members(connection: sqlite3.Connection, app: str | None, since: float) -> list[tuple[int, str, str, str]]:
    """Number, application, host and name of those that may have rows from ``since`` on."""
    return connection.execute(
        "SELECT id, app, host, name FROM containers WHERE seen >= ? AND (? IS NULL OR app = ?) ORDER BY id",
        (since - NOTE_S, app, app),
    ).fetchall()


def points(
    connection: sqlite3.Connection,
    app: str,
    since: float,
    until: float,
    step_s: float,
    numbers: tuple[int, int],
) -> list[tuple[Any, ...]]:
    """Rows of ``POINT``: containers numbered ``numbers[0]`` to ``numbers[1]``, in steps from ``since`` on.

    A row belongs to the step in which its time ends.
    """
    return connection.execute(
        f"SELECT member, CAST((at - ? - 0.001) / ? AS INTEGER) AS step, {', '.join(_POINT.values())}"
        " FROM container_history"
        f" WHERE level IN ({', '.join(str(number) for number in range(len(LEVELS)))})"
        " AND app = ? AND at > ? AND at <= ? AND member BETWEEN ? AND ?"
        " GROUP BY member, step ORDER BY member, step",
        (since, step_s, app, since, until, *numbers),
    ).fetchall()


def extent(connection: sqlite3.Connection, app: str | None, since: float) -> list[tuple[str, float, float]]:
    """Application, first and last instant of those that have rows after ``since``."""
    found = []
    for (name,) in connection.execute("SELECT DISTINCT app FROM containers ORDER BY app").fetchall():
        if app not in (None, name):
            continue
        instants = [
            at
            for end in ("min", "max")
            for level in range(len(LEVELS))
            for (at,) in connection.execute(
                f"SELECT {end}(at) FROM container_history WHERE level = ? AND app = ? AND at > ?",
                (level, name, since),
            )
            if at is not None
        ]
        if instants:
            found.append((name, float(min(instants)), float(max(instants))))
    return found
