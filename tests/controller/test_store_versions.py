"""A store of an earlier version is taken over: what control relies on must not be lost by an upgrade."""

import contextlib
import sqlite3
from pathlib import Path

from escra_controller.bounds import Bound
from escra_controller.storage.values import HistoryRow, Size
from tests.controller.storing import News, asides, decision, opened

# As version 1 made it.
SCHEMA_1 = """
PRAGMA application_id = 1165194098;
PRAGMA user_version = 1;
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
    before INTEGER, after INTEGER, numbers TEXT
);
CREATE INDEX decisions_of_app ON decisions (app, at);
CREATE TABLE history (
    at REAL, app TEXT,
    cpu_limit_milli INTEGER, cpu_allocated_milli INTEGER, cpu_used_milli INTEGER,
    memory_limit_bytes INTEGER, memory_allocated_bytes INTEGER, memory_used_bytes INTEGER,
    containers INTEGER, hosts INTEGER, throttled_ratio REAL
);
CREATE INDEX history_of_app ON history (app, at);
"""


def version_1(directory: Path, *more: str) -> Path:
    path = directory / "controller.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA_1)
        connection.execute("INSERT INTO meta VALUES (1, 7, 3, 1, 0, '')")
        connection.execute("INSERT INTO bounds VALUES ('h1', 'shop', 1500, 4096)")
        connection.execute("INSERT INTO sizes VALUES ('shop', 4000, NULL)")
        old = (1, 5.0, "shop", "h1", "web", 7, "cpu", "throttled", "why", 1, 2, "{}")
        connection.execute(f"INSERT INTO decisions VALUES ({', '.join('?' * len(old))})", old)
        connection.execute("INSERT INTO history VALUES (5.0, 'shop', 1, 2, 3, 4, 5, 6, 7, 8, 0.5)")
        for statement in more:
            connection.execute(statement)
        connection.commit()
    return path


def test_a_store_of_version_1_goes_on_with_all_that_it_knew(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    news = News()
    with opened(tmp_path, news) as (store, recovered):
        assert (recovered.generation, recovered.starts, recovered.promoted) == (7, 4, True)
        assert recovered.bounds == {("h1", "shop"): Bound(1500, 4096)}
        assert recovered.sizes == {"shop": Size(4000, None)}
        assert (recovered.lost, store.trouble) == ("", "")
        ((number, old),) = store.decisions()
        assert (number, old.cause, old.observed) == (1, "why", False)
        assert store.history() == [HistoryRow(5.0, "shop", 1, 2, 3, 4, 5, 6, 7, 8, 0.5)]
        store.record([decision(9)], 0.0)
    with opened(tmp_path) as (store, _):
        assert [number for number, _ in store.decisions()] == [1, 2]
    assert asides(tmp_path) == []
    assert news.heard == []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        # A store that was taken over is one like those that are made new.
        taken_over = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    with opened(tmp_path / "new"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / "controller.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == taken_over


def test_one_that_cannot_be_taken_over_is_replaced_by_one_that_knows_as_much(tmp_path: Path) -> None:
    version_1(tmp_path, "CREATE TABLE containers (in_the_way TEXT)")
    with opened(tmp_path) as (store, recovered):
        assert recovered.bounds == {("h1", "shop"): Bound(1500, 4096)}
        assert recovered.lost == ""
        assert store.decisions() == []
    assert len(asides(tmp_path)) == 1
    with opened(tmp_path) as (_, recovered):
        assert recovered.bounds == {("h1", "shop"): Bound(1500, 4096)}
        assert recovered.sizes == {"shop": Size(4000, None)}
