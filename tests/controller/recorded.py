"""A store with a history, as a controller would have left it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from escra_controller.events import Decision
from escra_controller.past import Question, read
from escra_controller.storage.database import Database
from escra_controller.storage.values import ContainerRow, HistoryRow
from tests.controller.storing import opened

MIB = 1 << 20


def row(at: float, n: int = 0, *, observed: bool = False, span_s: float = 5.0, **more: Any) -> ContainerRow:
    """A wave of load: managed containers follow it, an observed one runs into its limit of 0.4 cores."""
    used = 300 * (1.2 + math.sin(at / 40 + n))
    would = used * 1.2 + 50
    fields: dict[str, Any] = {
        "at": at,
        "span_s": span_s,
        "app": "shop",
        "host": f"host-{n % 5}",
        "key": 1000 + n,
        "container": f"web-{n}",
        "observed": observed,
        "cpu_limit_milli": 400.0 if observed else would,
        "cpu_used_milli": min(used, 400.0) if observed else used,
        "cpu_peak_milli": used,
        "cpu_original_milli": 400 if observed else 1500,
        "throttled_ratio": 0.3 if observed and used > 400 else 0.0,
        "throttled_peak": 0.5,
        "memory_limit_bytes": (512 if observed else 256) * MIB,
        "memory_used_bytes": 200.0 * MIB,
        "memory_peak_bytes": 230 * MIB,
        "memory_original_bytes": (512 if observed else 1024) * MIB,
        "would_cpu_milli": would if observed else None,
        "would_memory_bytes": 256.0 * MIB if observed else None,
        "would_throttled": 0.01 if observed else None,
    }
    return ContainerRow(**(fields | more))


def recorded(
    directory: Path, rows: Iterator[list[ContainerRow]], decisions: list[Decision] | None = None
) -> Path:
    """The path of a store with these rows, one list per instant, and the application's own beside them."""
    with opened(directory) as (store, _):
        path = store.path
    database = Database(path, 1.0)
    try:
        for at_once in rows:
            at, app = at_once[0].at, at_once[0].app
            whole = HistoryRow(at, app, 60_000, 0, 0, 64 << 30, 0, 0, len(at_once), 5, 0.0)
            database.record([], [whole], 200_000, 0.0, at_once)
        database.record(decisions or [], [], 200_000, 0.0)
    finally:
        database.close()
    return path


def asking(path: Path) -> Callable[..., Any]:
    """Asks the store as a command asks the controller, over the wire's encoding."""

    def ask(op: str, **arguments: Any) -> Any:
        data = read(path, msgspec.convert({"op": op, **arguments}, Question))
        return msgpack.unpackb(msgpack.packb(data))

    return ask
