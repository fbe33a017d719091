"""Every container's history: nothing that happened is lost, and the file does not grow without end."""

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from escra_common.messages import MemoryLevel
from escra_controller.demo import virtual
from escra_controller.demo.scene import APP, Scene
from escra_controller.events import MemoryArrived, Ticked
from escra_controller.history import LOOK_TICKS, Logbook
from escra_controller.state import MemberKey
from escra_controller.storage.containerhistory import LEVELS, ContainerNames, add, age
from escra_controller.storage.tables import SCHEMA
from escra_controller.would import Would
from tests.controller.kernels import Memory
from tests.controller.recorded import MIB, row
from tests.controller.world import World, spec


def test_a_row_has_the_use_and_throttling_of_all_its_time() -> None:
    scene = Scene()
    host = virtual.build_host(scene)
    engine = virtual.start_engine(scene, host)
    logbook = Logbook()
    throttled: dict[str, list[float]] = {name: [] for name in ("web", "api", "jobs")}
    before, began = {}, 0.0
    for beat in range(1, 241):
        now = beat * virtual.BEAT_S
        host.advance(now)
        virtual.exchange(engine, host, host.samples() if beat % 2 else Ticked(), now)
        if beat % 2:
            for member in engine.members.values():
                if member.demand.latest and now > 7:
                    throttled[member.info.name].append(member.demand.latest.throttled)
            continue
        logbook.look(engine, now)
        if now == 7.0:
            assert len(list(logbook.rows(engine, 1000.0, now))) == 3
            before, began = {c.name: c.usage_usec for c in host.containers.values()}, now
    rows = {row.container: row for row in logbook.rows(engine, 1005.0, now)}
    assert set(rows) == {"web", "api", "jobs"}
    for container in host.containers.values():
        row = rows[container.name]
        used = (container.usage_usec - before[container.name]) / 1000 / (now - began)
        assert row.cpu_used_milli == pytest.approx(used, rel=0.1)
        assert row.cpu_peak_milli >= row.cpu_used_milli
        assert row.throttled_peak == pytest.approx(max(throttled[container.name][:-LOOK_TICKS]), abs=0.51)
        assert (row.app, row.observed, row.would_cpu_milli) == (APP, False, None)
    # The scene throttles somebody, whatever instant a row falls on.
    assert any(row.throttled_ratio > 0 and row.throttled_peak > 0 for row in rows.values())


def test_an_observed_container_is_told_of_with_what_it_would_have() -> None:
    w = World(spec())
    w.join("h1")
    seen = w.add("h1", 1.0, mode="observe", memory=Memory(used=30 * MIB, want=30 * MIB, limit=64 * MIB))
    off = w.add("h1", 1.0, mode="off")
    asked: list[MemberKey] = []

    def would(key: MemberKey) -> Would:
        asked.append(key)
        return Would(700, None, 0.25)

    logbook = Logbook(would)
    for tick in range(LOOK_TICKS * 2):
        logbook.look(w.engine, tick * 0.1)
    (row,) = logbook.rows(w.engine, 1000.0, 1.0)
    assert (row.container, row.observed) == (seen.info.name, True)
    assert (row.would_cpu_milli, row.would_memory_bytes, row.would_throttled) == (700, 64 * MIB, 0.25)
    assert (row.cpu_limit_milli, row.cpu_original_milli, row.memory_limit_bytes) == (None, None, 64 * MIB)
    assert MemberKey("h1", off.info.key) not in asked
    w.part("h1")
    assert list(logbook.rows(w.engine, 1005.0, 6.0)) == []


def test_oom_counts_of_a_row_are_those_of_its_time() -> None:
    w = World(spec())
    w.join("h1")
    web = w.add("h1", memory=Memory(used=60 * MIB, want=60 * MIB, limit=64 * MIB))
    w.settle()
    level = MemoryLevel(web.info.key, 60 * MIB, 64 * MIB, oom_events=5, oom_kills=2)
    w.handle(MemoryArrived("h1", [level]))
    logbook = Logbook()

    def looked(at: float) -> tuple[int, int, int]:
        for tick in range(LOOK_TICKS):
            logbook.look(w.engine, at + tick * 0.1)
        (row,) = logbook.rows(w.engine, at, at + 1)
        return row.oom_events, row.oom_kills, row.oom_averted

    assert looked(0.0) == (0, 0, 0)
    w.handle(MemoryArrived("h1", [MemoryLevel(web.info.key, 60 * MIB, 64 * MIB, oom_events=7, oom_kills=3)]))
    w.grow("h1", web, 70 * MIB)
    w.settle()
    # The world's kernels tell their own levels, in which nothing was killed.
    w.handle(MemoryArrived("h1", [MemoryLevel(web.info.key, 70 * MIB, 80 * MIB, oom_events=7, oom_kills=3)]))
    assert looked(5.0) == (2, 1, 1)
    assert looked(10.0) == (0, 0, 0)


def totals(connection: sqlite3.Connection) -> tuple[object, ...]:
    found: tuple[object, ...] = connection.execute(
        "SELECT sum(span_ms), sum(cpu_used), sum(memory_used), sum(oom_kills), sum(throttled), max(cpu_peak),"
        " max(throttled_peak) FROM container_history"
    ).fetchone()
    return found


def test_rows_get_coarser_without_losing_anything_and_end(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        names, start = ContainerNames(), 1_000_000_000.0
        connection.execute("BEGIN")
        for n in range(3000):
            at, peak = start + 5 * n, n / 3000
            add(connection, names, [row(at, c, oom_kills=c, throttled_peak=peak) for c in (1, 2)])
        before = totals(connection)
        last = start + 5 * 2999
        for _ in range(3000):
            age(connection, last)
        levels = dict(connection.execute("SELECT level, count(*) FROM container_history GROUP BY level"))
        assert totals(connection) == before
        # Two hours of two containers stay as they are; the rest is one row a minute.
        assert levels[0] == 2 * (LEVELS[0].keep_s // 5 + 1)
        assert 2 * 129 <= levels[1] <= 2 * 132
        for _ in range(3000):
            age(connection, last + LEVELS[1].keep_s + LEVELS[0].keep_s)
        assert totals(connection) == before
        (quarters,) = connection.execute("SELECT count(*) FROM container_history WHERE level = 2").fetchone()
        assert 2 * 16 <= quarters <= 2 * 18
        for _ in range(3000):
            age(connection, last + LEVELS[2].keep_s + 900)
        assert connection.execute("SELECT count(*) FROM container_history").fetchone() == (0,)


def test_a_limit_that_was_none_for_a_while_has_no_mean() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        add(connection, ContainerNames(), [row(60.0, cpu_limit_milli=None), row(60.5)])
        assert connection.execute("SELECT cpu_limit, span_ms FROM container_history").fetchall() == [
            (None, 10_000)
        ]


def test_an_instant_takes_less_than_a_hundred_bytes_per_container(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        names = ContainerNames()
        connection.execute("BEGIN")
        for n in range(100):
            add(connection, names, [row(1e9 + 5 * n, c) for c in range(100)])
        connection.execute("COMMIT")
    each = path.stat().st_size / 10_000
    print(f"{each:.0f} bytes per container and instant")
    assert each < 100


def test_looking_costs_less_than_deciding() -> None:
    w = World(spec(cpu=1_000_000, memory=1 << 40))
    w.join("h1")
    for _ in range(100):
        w.add("h1", 1.0)
    w.settle()
    logbook, looking, deciding = Logbook(), 0.0, 0.0
    for _ in range(2 * LOOK_TICKS):
        began = time.perf_counter()
        w.tick()
        ticked = time.perf_counter()
        logbook.look(w.engine, w.now)
        deciding += ticked - began
        looking += time.perf_counter() - ticked
    print(f"{looking / (2 * LOOK_TICKS) * 1e6:.0f} us per tick for 100 containers")
    assert looking < deciding / 4
