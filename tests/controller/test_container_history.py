"""Every container's history: nothing that happened is lost, and the file does not grow without end."""

import contextlib
import sqlite3
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from escra_common.messages import CpuLimit, MemoryLevel
from escra_controller.demo import virtual
from escra_controller.demo.scene import APP, Scene
from escra_controller.events import (
    AppsConfigured,
    ContainerAppeared,
    Event,
    MemoryArrived,
    SamplesArrived,
    Ticked,
)
from escra_controller.history import ROW_TICKS, Logbook, Tally
from escra_controller.state import MemberKey
from escra_controller.storage.containerhistory import (
    LEVELS,
    NAME_S,
    NOTE_S,
    ContainerNames,
    add,
    age,
)
from escra_controller.storage.tables import SCHEMA
from escra_controller.storage.values import ContainerRow
from escra_controller.would import Would
from tests.controller.kernels import PERIOD_USEC, Memory
from tests.controller.recorded import MIB, row
from tests.controller.world import TICK_S, World, spec


def test_a_row_has_the_use_and_throttling_of_all_its_time() -> None:
    scene = Scene()
    host = virtual.build_host(scene)
    engine = virtual.start_engine(scene, host)
    logbook = Logbook()
    containers = {container.name: container for container in host.containers.values()}
    # Since each container's last row.
    throttled: dict[str, list[float]] = {name: [] for name in containers}
    began: dict[str, tuple[float, float]] = {}
    rows: list[ContainerRow] = []
    for beat in range(1, 401):
        now = beat * virtual.BEAT_S
        host.advance(now)
        event: Event = host.samples() if beat % 2 else Ticked()
        virtual.exchange(engine, host, event, now)
        logbook.hear(event)
        if beat % 2:
            for member in engine.members.values():
                if member.demand.latest:
                    throttled[member.info.name].append(member.demand.latest.throttled)
            continue
        for found in logbook.tick(engine, 1000.0 + now, now):
            name = found.container
            if name in began:
                since, usage_usec = began[name]
                used = (containers[name].usage_usec - usage_usec) / 1000 / (now - since)
                assert found.span_s == pytest.approx(now - since)
                assert found.cpu_used_milli == pytest.approx(used, rel=0.1)
                assert found.cpu_peak_milli >= found.cpu_used_milli
                assert found.throttled_peak == max(throttled[name])
                assert (found.app, found.observed, found.would_cpu_milli) == (APP, False, None)
                rows.append(found)
            began[name], throttled[name] = (now, containers[name].usage_usec), []
    assert Counter(row.container for row in rows) == {"web": 3, "api": 3, "jobs": 3}
    # The scene throttles somebody, whatever instant a row falls on.
    assert any(row.throttled_ratio > 0 and row.throttled_peak > 0 for row in rows)


def all_rows(logbook: Logbook, w: World, at: float) -> list[ContainerRow]:
    """Those of so many ticks that everybody has a turn, from ``at`` on."""
    return [row for n in range(ROW_TICKS) for row in logbook.tick(w.engine, 1000.0, at + n * TICK_S)]


def test_a_limit_counts_for_as_long_as_it_was_in_force() -> None:
    w = World(spec(cpu=4000))
    w.join("h1")
    web = w.add("h1", 1.0)
    w.settle()
    member = w.engine.members[MemberKey("h1", web.info.key)]
    member.limit = 1000
    tally = Tally(member, None, 10.0)
    member.limit = 3000  # there is news of it four seconds later
    tally.look(member, None, 14.0)
    assert tally.row(member, None, 1000.0, 15.0).cpu_limit_milli == pytest.approx(1400)
    assert tally.row(member, None, 1001.0, 16.0).cpu_limit_milli == pytest.approx(3000)
    for limit in (None, 3000):
        member.limit = limit
        member.info = msgspec.structs.replace(member.info, in_force=CpuLimit(None, PERIOD_USEC))
        tally.look(member, None, 17.0 if limit is None else 18.0)
    assert tally.row(member, None, 1004.0, 19.0).cpu_limit_milli is None


def test_only_those_are_looked_at_of_whom_there_is_news() -> None:
    w = World(spec(), spec("later"))
    w.join("h1")
    asked: list[int] = []

    def would(key: MemberKey) -> Would:
        asked.append(key.key)
        return Would(700, None, 0.0)

    logbook = Logbook(would)
    observed = w.add("h1", 1.0, mode="observe")
    quiet = w.add("h1", 0.0, mode="observe")
    logbook.hear(SamplesArrived("h1", [w._sample(observed)]))
    rows = all_rows(logbook, w, 0.0)
    assert set(asked) == {observed.info.key}
    assert {row.key for row in rows} == {observed.info.key}
    # A configuration may make anybody a container of an application.
    logbook.hear(AppsConfigured([spec()]))
    assert {row.key for row in all_rows(logbook, w, 5.0) + all_rows(logbook, w, 10.0)} == {
        observed.info.key,
        quiet.info.key,
    }


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
    logbook.hear(ContainerAppeared("h1", seen.info))
    logbook.hear(ContainerAppeared("h1", off.info))
    (row,) = [*all_rows(logbook, w, 0.0), *all_rows(logbook, w, 5.0)][-1:]
    assert (row.container, row.observed) == (seen.info.name, True)
    assert (row.would_cpu_milli, row.would_memory_bytes, row.would_throttled) == (700, 64 * MIB, 0.25)
    assert (row.cpu_limit_milli, row.cpu_original_milli, row.memory_limit_bytes) == (None, None, 64 * MIB)
    assert MemberKey("h1", off.info.key) not in asked
    w.part("h1")
    assert all_rows(logbook, w, 10.0) == []


def test_oom_counts_of_a_row_are_those_of_its_time() -> None:
    w = World(spec())
    w.join("h1")
    web = w.add("h1", memory=Memory(used=60 * MIB, want=60 * MIB, limit=64 * MIB))
    w.settle()
    logbook = Logbook()

    def tell(used: int, limit: int, oom_events: int, oom_kills: int) -> None:
        event = MemoryArrived("h1", [MemoryLevel(web.info.key, used, limit, oom_events, oom_kills)])
        w.handle(event)
        logbook.hear(event)

    def looked(at: float) -> tuple[int, int, int]:
        *_, row = all_rows(logbook, w, at)
        return row.oom_events, row.oom_kills, row.oom_averted

    tell(60 * MIB, 64 * MIB, oom_events=5, oom_kills=2)
    all_rows(logbook, w, 0.0)
    assert looked(5.0) == (0, 0, 0)
    tell(60 * MIB, 64 * MIB, oom_events=7, oom_kills=3)
    w.grow("h1", web, 70 * MIB)
    w.settle()
    # The world's kernels tell their own levels, in which nothing was killed.
    tell(70 * MIB, 80 * MIB, oom_events=7, oom_kills=3)
    assert looked(10.0) == (2, 1, 1)
    assert looked(15.0) == (0, 0, 0)


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


def test_names_go_when_no_row_can_name_them_any_more() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        names, start = ContainerNames(), 1_000_000_000.0

        def kept(at: float) -> int:
            """After another container has a row, within the hour of the look before and past it."""
            add(connection, names, [row(at, 2)])
            found: tuple[int] = connection.execute("SELECT count(*) FROM containers").fetchone()
            return found[0]

        add(connection, names, [row(start, 1)])
        assert kept(start + NAME_S - NOTE_S / 2) == 2
        assert kept(start + NAME_S + 1) == 2, "it is not looked for with every row"
        assert kept(start + NAME_S + NOTE_S) == 1


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
    kernels = [w.add("h1", 1.0) for _ in range(100)]
    w.settle()
    logbook, looking, deciding = Logbook(), 0.0, 0.0
    for _ in range(ROW_TICKS):
        event = SamplesArrived("h1", [w._sample(kernel) for kernel in kernels])
        began = time.perf_counter()
        w.tick()
        ticked = time.perf_counter()
        logbook.hear(event)
        list(logbook.tick(w.engine, w.now, w.now))
        deciding += ticked - began
        looking += time.perf_counter() - ticked
    print(f"{looking / ROW_TICKS * 1e6:.0f} us per tick for 100 containers")
    assert looking < deciding / 4
