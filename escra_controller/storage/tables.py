"""The tables, and the store's values as their rows.

The version of the schema and whose file it is stand in sqlite's own header.
"""

import json
import sqlite3
from typing import Any

from escra_controller.bounds import NOTHING
from escra_controller.events import Decision
from escra_controller.storage.containerhistory import TABLES
from escra_controller.storage.values import AS_CONFIGURED, Changes, HistoryRow

SCHEMA_VERSION = 2
APPLICATION_ID = int.from_bytes(b"Escr", "big")

# The CHECKs are for quick_check: a garbage page that still parses must not pass for bounds.
SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL CHECK (typeof(generation) = 'integer'),
    starts INTEGER NOT NULL CHECK (typeof(starts) = 'integer'),
    promoted INTEGER NOT NULL CHECK (promoted IN (0, 1)),
    clean INTEGER NOT NULL CHECK (clean IN (0, 1)),
    lost TEXT NOT NULL CHECK (typeof(lost) = 'text')
);
CREATE TABLE bounds (
    host TEXT NOT NULL CHECK (typeof(host) = 'text'),
    app TEXT NOT NULL CHECK (typeof(app) = 'text'),
    cpu_milli INTEGER NOT NULL CHECK (typeof(cpu_milli) = 'integer' AND cpu_milli >= 0),
    memory_bytes INTEGER NOT NULL CHECK (typeof(memory_bytes) = 'integer' AND memory_bytes >= 0),
    PRIMARY KEY (host, app)
) WITHOUT ROWID;
CREATE TABLE sizes (
    app TEXT PRIMARY KEY NOT NULL CHECK (typeof(app) = 'text'),
    cpu_milli INTEGER CHECK (typeof(cpu_milli) IN ('integer', 'null')),
    memory_bytes INTEGER CHECK (typeof(memory_bytes) IN ('integer', 'null'))
) WITHOUT ROWID;
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY,
    at REAL, app TEXT, host TEXT, container TEXT, key INTEGER, resource TEXT, rule TEXT, cause TEXT,
    before INTEGER, after INTEGER, numbers TEXT, observed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX decisions_of_app ON decisions (app, at);
CREATE TABLE history (
    at REAL, app TEXT,
    cpu_limit_milli INTEGER, cpu_allocated_milli INTEGER, cpu_used_milli INTEGER,
    memory_limit_bytes INTEGER, memory_allocated_bytes INTEGER, memory_used_bytes INTEGER,
    containers INTEGER, hosts INTEGER, throttled_ratio REAL
);
CREATE INDEX history_of_app ON history (app, at);
{TABLES}
"""

# From a version to the next, in one transaction.
UPGRADES = {
    1: f"""
ALTER TABLE decisions ADD COLUMN observed INTEGER NOT NULL DEFAULT 0;
{TABLES}
PRAGMA user_version = 2;
""",
}


def write(connection: sqlite3.Connection, changes: Changes) -> None:
    if meta := changes.meta:
        connection.execute(
            "INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?)",
            (meta.generation, meta.starts, meta.promoted, meta.clean, meta.lost),
        )
    bounds, sizes = changes.bounds, changes.sizes
    run = connection.executemany
    run(
        "INSERT OR REPLACE INTO bounds VALUES (?, ?, ?, ?)",
        ((h, a, b.cpu, b.memory) for (h, a), b in bounds.items() if b != NOTHING),
    )
    run("DELETE FROM bounds WHERE host = ? AND app = ?", [k for k, b in bounds.items() if b == NOTHING])
    run(
        "INSERT OR REPLACE INTO sizes VALUES (?, ?, ?)",
        ((a, s.cpu_milli, s.memory_bytes) for a, s in sizes.items() if s != AS_CONFIGURED),
    )
    run("DELETE FROM sizes WHERE app = ?", [(a,) for a, s in sizes.items() if s == AS_CONFIGURED])


def audit_row(d: Decision) -> tuple[object, ...]:
    numbers = json.dumps(dict(d.numbers))
    return (
        *(d.at, d.app, d.host, d.container, d.key, d.resource, d.rule, d.cause, d.before, d.after),
        *(numbers, d.observed),
    )


def history_row(r: HistoryRow) -> tuple[object, ...]:
    return (
        *(r.at, r.app, r.cpu_limit_milli, r.cpu_allocated_milli, r.cpu_used_milli),
        *(r.memory_limit_bytes, r.memory_allocated_bytes, r.memory_used_bytes),
        *(r.containers, r.hosts, r.throttled_ratio),
    )


def decision(row: tuple[Any, ...]) -> tuple[int, Decision]:
    """A row of ``decisions`` with its number."""
    seq, at, app, host, container, key, resource, rule, cause, before, after, numbers, observed = row
    return seq, Decision(
        at,
        app,
        host,
        container,
        key,
        resource,
        rule,
        cause,
        before,
        after,
        json.loads(numbers),
        bool(observed),
    )
