"""What the store was told is there after a crash, and nobody waits for the disk."""

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from escra_controller.bounds import NOTHING, Bound
from escra_controller.storage.database import Database
from escra_controller.storage.values import HistoryRow, Size
from escra_controller.storage.worker import APPEND_ROWS
from escra_controller.storage.writer import Limits
from escra_controller.store import Store
from tests.controller.storing import QUICK, News, asked, decision, many, opened, secure, until

WEB, DB = ("h1", "shop"), ("h2", "shop")


def test_a_first_start_knows_nothing_and_is_counted(tmp_path: Path) -> None:
    for starts in (1, 2, 3):
        with opened(tmp_path / "state") as (store, recovered):
            assert (recovered.starts, recovered.lost, dict(recovered.bounds)) == (starts, "", {})
            assert store.trouble == ""


def test_what_is_secured_is_there_for_the_next_start(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        secure(store, {WEB: Bound(500, 1 << 30), DB: Bound(250, 1 << 20)})
        secure(store, {WEB: Bound(900, 2 << 30)})
    with opened(tmp_path) as (store, recovered):
        assert recovered.bounds == {WEB: Bound(900, 2 << 30), DB: Bound(250, 1 << 20)}
        secure(store, {DB: NOTHING})
    with opened(tmp_path) as (_, recovered):
        assert recovered.bounds == {WEB: Bound(900, 2 << 30)}


def test_the_start_is_counted_on_disk_before_open_returns(tmp_path: Path) -> None:
    with opened(tmp_path), contextlib.closing(sqlite3.connect(tmp_path / "controller.db")) as other:
        assert other.execute("SELECT starts, clean FROM meta").fetchone() == (1, 0)


def test_only_a_clean_stop_is_clean(tmp_path: Path) -> None:
    for clean, before in ((True, False), (False, True), (True, False), (True, True)):
        store, recovered = Store.open(tmp_path, News())
        assert recovered.clean == before
        assert store.close(clean)
    assert not (tmp_path / "controller.db-wal").exists()


def test_leadership_and_sizes_are_kept(tmp_path: Path) -> None:
    led = threading.Event()
    with opened(tmp_path) as (store, _):
        store.lead(7, True, led.set)
        assert led.wait(5)
        store.size("shop", cpu_milli=4000)
        store.size("shop", memory_bytes=2 << 30)
        store.size("jobs", cpu_milli=100)
        store.size("jobs", cpu_milli=200)
    with opened(tmp_path) as (store, recovered):
        assert (recovered.generation, recovered.promoted) == (7, True)
        assert recovered.sizes == {"shop": Size(4000, 2 << 30), "jobs": Size(200, None)}
        store.size("shop", cpu_milli=5000)
        store.forget_sizes()
        store.size("jobs", memory_bytes=5)
    with opened(tmp_path) as (_, recovered):
        assert recovered.sizes == {"jobs": Size(None, 5)}
        assert (recovered.generation, recovered.starts) == (7, 3)


def test_every_report_comes_once_and_in_order(tmp_path: Path) -> None:
    """Also of those that were merged into one commit."""
    heard: list[int] = []
    with opened(tmp_path) as (store, _):
        for n in range(2000):
            store.secure({WEB: Bound(n, n)}, lambda n=n: heard.append(n))  # type: ignore[misc]
        until(lambda: len(heard) == 2000)
    assert heard == list(range(2000))
    with opened(tmp_path) as (_, recovered):
        assert recovered.bounds == {WEB: Bound(1999, 1999)}


def test_reports_and_news_come_on_the_loop(tmp_path: Path) -> None:
    (tmp_path / "controller.db").write_bytes(b"nonsense")
    threads: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def reported() -> None:
            threads.append(threading.get_ident())
            done.set()

        store, _ = Store.open(tmp_path, lambda *_: threads.append(threading.get_ident()), loop=loop)
        store.secure({WEB: Bound(1, 1)}, reported)
        await asyncio.wait_for(done.wait(), 5)
        assert await asyncio.to_thread(store.decisions) == []
        store.close(clean=True)

    asyncio.run(main())
    assert len(threads) == 2
    assert set(threads) == {threading.get_ident()}


def test_a_report_for_a_loop_that_is_closed_ends_nothing(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    store, _ = Store.open(tmp_path, News(), loop=loop)
    loop.close()
    store.secure({WEB: Bound(1, 1)}, lambda: None)
    assert store.close(clean=False)


# ---- audit and history -------------------------------------------------------------------


def test_the_audit_reads_back_as_it_was_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        store.record([decision(n, app="shop" if n % 2 else "jobs") for n in range(10)], offset_s=1000.0)
    with opened(tmp_path) as (store, _):
        found = store.decisions()
        assert [seq for seq, _ in found] == list(range(1, 11))
        assert [d.at for _, d in found] == [1000.0 + n for n in range(10)]
        first = found[0][1]
        assert (first.before, first.after, first.numbers) == (None, 0, {"ratio": 0.31})
        assert [d.at for _, d in store.decisions("shop", since=1003, until=1007)] == [1003, 1005]
        assert [seq for seq, _ in store.decisions(limit=3)] == [8, 9, 10]
        assert [seq for seq, _ in store.decisions(after=4, limit=3)] == [5, 6, 7]
        assert [seq for seq, _ in store.decisions("jobs", after=4)] == [5, 7, 9]


def test_the_audit_keeps_the_newest_rows(tmp_path: Path) -> None:
    limits = Limits(audit_rows=300)
    with opened(tmp_path, limits=limits) as (store, _):
        store.record([decision(n) for n in range(2 * APPEND_ROWS + 5)], 0.0)
    with opened(tmp_path, limits=limits) as (store, _):
        found = store.decisions(limit=10_000)
        assert [seq for seq, _ in found] == list(range(2 * APPEND_ROWS - 294, 2 * APPEND_ROWS + 6))
        assert store.dropped == 0


def test_a_flood_of_decisions_drops_the_oldest_and_says_so_once(tmp_path: Path) -> None:
    news = News()
    with opened(tmp_path, news, Limits(waiting_rows=50)) as (store, _):
        for n in range(80):
            store.record([decision(n)], 0.0)
        assert store.dropped == 30
        until(lambda: news.of("info"))
        assert [d.after for _, d in store.decisions()] == list(range(30, 80))
        assert store.trouble == ""
        assert store.dropped == 30
    assert len(news.of("warning")) == 1
    assert "30 rows" in news.of("info")[0]


def sample(at: float, app: str = "shop") -> HistoryRow:
    return HistoryRow(at, app, 4000, 3000, 2500, 8 << 30, 4 << 30, 3 << 30, 12, 3, 0.25)


def test_history_reads_back_and_ends_after_a_week(tmp_path: Path) -> None:
    now, day = time.time(), 86400
    with opened(tmp_path) as (store, _):
        store.sample([sample(now - 8 * day), sample(now - 6 * day), sample(now - 6 * day, "jobs")])
        store.sample([sample(now)])
    with opened(tmp_path) as (store, _):
        assert store.history("shop") == [sample(now - 6 * day), sample(now)]
        assert store.history(since=now - day, until=now + 1) == [sample(now)]
        assert store.history(until=now) == [sample(now - 6 * day), sample(now - 6 * day, "jobs")]
        assert store.history(limit=1) == [sample(now)]


# ---- how fast, and through what ----------------------------------------------------------


def test_recovery_with_a_full_audit_takes_less_than_a_second(tmp_path: Path) -> None:
    bounds = many()
    with opened(tmp_path) as (store, _):
        secure(store, bounds)
    database = Database(tmp_path / "controller.db", busy_s=0)
    database.record((decision(n, f"app-{n % 10}") for n in range(200_000)), [], 200_000, 0.0)
    database.close()
    before = time.perf_counter()
    with opened(tmp_path) as (store, recovered):
        took_s = time.perf_counter() - before
        assert recovered.bounds == bounds
        assert store.decisions(limit=1)[0][0] == 200_000
    print(f"recovered 1,000 bounds and 200,000 audit rows in {took_s * 1000:.0f} ms")
    assert took_s < 1.0


def test_bounds_hardly_wait_for_the_audit(tmp_path: Path) -> None:
    waits = []
    with opened(tmp_path) as (store, _):
        for n in range(200):
            store.record([decision(n) for _ in range(50)], 0.0)
            before = time.perf_counter()
            secure(store, {WEB: Bound(n, n)})
            waits.append(time.perf_counter() - before)
            time.sleep(0.01)
    waits.sort()
    print(f"secured in p50 {waits[100] * 1000:.1f} ms, p99 {waits[198] * 1000:.1f} ms")
    assert waits[100] < 0.05


STREAM = """
import sys
from pathlib import Path
from escra_controller.storage.values import Bound
from escra_controller.store import Store

store, recovered = Store.open(Path(sys.argv[1]), lambda level, text: None)
n = int(sys.argv[2])
while True:
    n += 1
    place = (f"h{n % 7}", f"a{n % 3}")

    def done(place=place, n=n):
        sys.stdout.write(f"{place[0]} {place[1]} {n}\\n")
        sys.stdout.flush()

    store.secure({place: Bound(n, n)}, done)
    if n % 50 == 0:
        store.record([], 0.0)
    if n % 13 == 0:
        sys.stdout.flush()
"""


def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    rng = random.Random(4)
    reported: dict[tuple[str, str], int] = {}
    n = 0
    for round_ in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", STREAM, str(tmp_path), str(n)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline()]
            timer = threading.Timer(rng.uniform(0.0, 0.15), child.kill)
            timer.start()
            lines += child.stdout.readlines()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            timer.join()
        # The kill may have cut the last line short.
        for host, app, value in (line.split() for line in lines if line.endswith("\n")):
            reported[host, app] = int(value)
        n = max(reported.values()) + 100_000
        store, recovered = Store.open(tmp_path, News(), limits=QUICK)
        assert store.close(clean=False)
        assert (recovered.lost, recovered.clean) == ("", False)
        assert recovered.starts == 2 * round_ + 2
        late = {place for place, value in reported.items() if recovered.bounds[place].cpu < value}
        assert late == set()
    assert len(reported) == 21


def test_a_disk_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A lock held by another connection stands for it: the thread cannot go on."""
    news = News()
    with opened(tmp_path, news) as (store, _):
        secure(store, {WEB: Bound(1, 1)})
        other = sqlite3.connect(tmp_path / "controller.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        before = time.perf_counter()
        waiting = asked(store, {WEB: Bound(2, 2)})
        store.record([decision(1)], 0.0)
        assert time.perf_counter() - before < 0.05
        assert not waiting.wait(2.5)
        assert "locked" in store.trouble
        assert len(news.of("error")) == 1
        assert store.decisions() == []
        other.execute("ROLLBACK")
        assert waiting.wait(5)
        assert store.trouble == ""
        assert len(news.of("info")) == 1
        other.execute("BEGIN IMMEDIATE")
        waiting = asked(store, {WEB: Bound(3, 3)})
        before = time.perf_counter()
        assert not store.close(clean=True)
        assert time.perf_counter() - before < 2.5
        until(lambda: "store" not in {thread.name for thread in threading.enumerate()})
        assert not waiting.is_set()
        other.close()
    with opened(tmp_path) as (_, recovered):
        assert recovered.bounds == {WEB: Bound(2, 2)}
        assert not recovered.clean
