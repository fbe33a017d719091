"""Reading the audit and the history, beside the thread that writes them.

Each query has a connection of its own: it waits for nobody and nobody waits for it.
"""

import contextlib
from pathlib import Path
from typing import Any

from escra_controller.events import Decision
from escra_controller.storage import containerhistory
from escra_controller.storage.database import connect, translated
from escra_controller.storage.tables import decision
from escra_controller.storage.values import HistoryRow

_BUSY_S = 1.0


def read_decisions(
    path: Path,
    app: str | None = None,
    since: float | None = None,
    until: float | None = None,
    after: int | None = None,
    limit: int = 1000,
    container: str | None = None,
    rule: str | None = None,
) -> list[tuple[int, Decision]]:
    """Numbered and oldest first: the latest ``limit``, or with ``after`` those next to that number.

    The decisions' ``at``, and ``since <= at < until``, are unix time.  Raises StoreError.
    """
    where, values = _conditions(app, since, until, container, rule)
    if after is not None:
        where, values = f"{where} AND seq > ?", [*values, after]
    order = "DESC" if after is None else "ASC"
    rows = _select(path, f"* FROM decisions WHERE {where} ORDER BY seq {order} LIMIT ?", [*values, limit])
    decisions = [decision(row) for row in rows]
    return decisions if after is not None else decisions[::-1]


def read_history(
    path: Path,
    app: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 1000,
) -> list[HistoryRow]:
    """The latest ``limit``, oldest first; ``since <= at < until``.  Raises StoreError."""
    where, values = _conditions(app, since, until)
    rows = _select(path, f"* FROM history WHERE {where} ORDER BY rowid DESC LIMIT ?", [*values, limit])
    return [HistoryRow(*row) for row in reversed(rows)]


def read_rules(path: Path, app: str, since: float, until: float) -> list[tuple[Any, ...]]:
    """How often which rule decided: container, host, resource, rule, observed, times.  Raises StoreError."""
    return _select(
        path,
        "container, host, resource, rule, observed, count(*) FROM decisions"
        " WHERE app = ? AND at >= ? AND at < ? GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC LIMIT 5000",
        [app, since, until],
    )


def read_members(path: Path, app: str | None, since: float) -> list[tuple[int, str, str, str]]:
    """The containers of the history: number, application, host, name.  Raises StoreError."""
    with translated(path), contextlib.closing(connect(path, "ro", _BUSY_S)) as connection:
        return containerhistory.members(connection, app, since)


def read_extent(path: Path, app: str | None, since: float) -> list[tuple[str, float, float]]:
    """Application, first and last instant of its containers' history after ``since``.  Raises StoreError."""
    with translated(path), contextlib.closing(connect(path, "ro", _BUSY_S)) as connection:
        return containerhistory.extent(connection, app, since)


def read_points(
    path: Path, app: str, since: float, until: float, step_s: float, members: tuple[int, int]
) -> list[tuple[Any, ...]]:
    """The history of the containers numbered from and to ``members``, in steps from ``since`` on.

    The columns are ``containerhistory.POINT``.  Raises StoreError.
    """
    with translated(path), contextlib.closing(connect(path, "ro", _BUSY_S)) as connection:
        return containerhistory.points(connection, app, since, until, step_s, members)


def read_app_points(path: Path, app: str, since: float, until: float, step_s: float) -> list[tuple[Any, ...]]:
    """An application's history in steps from ``since`` on; the columns are ``APP_POINT``."""
    return _select(
        path,
        "CAST((at - ? - 0.001) / ? AS INTEGER), avg(cpu_limit_milli), avg(cpu_allocated_milli),"
        " avg(cpu_used_milli),"
        " avg(memory_limit_bytes), avg(memory_allocated_bytes), avg(memory_used_bytes)"
        " FROM history WHERE app = ? AND at > ? AND at <= ? GROUP BY 1 ORDER BY 1",
        [since, step_s, app, since, until],
    )


APP_POINT = (
    "step",
    "cpu_limit_milli",
    "cpu_allocated_milli",
    "cpu_used_milli",
    "memory_limit_bytes",
    "memory_allocated_bytes",
    "memory_used_bytes",
)


def _conditions(
    app: str | None,
    since: float | None,
    until: float | None,
    container: str | None = None,
    rule: str | None = None,
) -> tuple[str, list[Any]]:
    conditions = (
        *(("app = ?", app), ("at >= ?", since), ("at < ?", until)),
        *(("container = ?", container), ("rule = ?", rule)),
    )
    given = [(condition, value) for condition, value in conditions if value is not None]
    return " AND ".join(["1", *(condition for condition, _ in given)]), [value for _, value in given]


def _select(path: Path, what: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with translated(path), contextlib.closing(connect(path, "ro", _BUSY_S)) as connection:
        return connection.execute(f"SELECT {what}", values).fetchall()
