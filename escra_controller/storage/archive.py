"""Reading the audit and the history, beside the thread that writes them.

Each query has a connection of its own: it waits for nobody and nobody waits for it.
"""

import contextlib
from pathlib import Path
from typing import Any

from escra_controller.events import Decision
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
) -> list[tuple[int, Decision]]:
    """Numbered and oldest first: the latest ``limit``, or with ``after`` those next to that number.

    The decisions' ``at``, and ``since <= at < until``, are unix time.  Raises StoreError.
    """
    where, values = _conditions(app, since, until)
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


def _conditions(app: str | None, since: float | None, until: float | None) -> tuple[str, list[Any]]:
    given = [
        (condition, value)
        for condition, value in (("app = ?", app), ("at >= ?", since), ("at < ?", until))
        if value is not None
    ]
    return " AND ".join(["1", *(condition for condition, _ in given)]), [value for _, value in given]


def _select(path: Path, what: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with translated(path), contextlib.closing(connect(path, "ro", _BUSY_S)) as connection:
        return connection.execute(f"SELECT {what}", values).fetchall()
