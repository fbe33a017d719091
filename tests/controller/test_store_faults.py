"""Damaged files and bad disks: reported, set aside, never a lie, and never in the way of control."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escra_controller.storage.database import StoreError
from escra_controller.storage.recovery import StoreLocked
from escra_controller.storage.values import NOTHING, Bound, Size
from escra_controller.storage.writer import Limits
from escra_controller.store import Store
from tests.controller.storing import (
    QUICK,
    News,
    asides,
    decision,
    fill,
    many,
    opened,
    secure,
    small_disk,
    until,
)
from tests.needs import unavailable

WEB, DB = ("h1", "shop"), ("h2", "shop")
PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """1 MiB of it."""
    if os.geteuid() != 0:
        unavailable("kernel", "mounting a small disk needs root")
    with small_disk(tmp_path / "disk", 1024) as path:
        yield path


# ---- files that cannot be used -----------------------------------------------------------


def filled(directory: Path) -> Path:
    """A store with 1,000 bounds and some audit, cleanly closed."""
    store, _ = Store.open(directory, News(), limits=QUICK)
    secure(store, many())
    store.record([decision(n) for n in range(500)], 0.0)
    assert store.close(clean=True)
    return directory / "controller.db"


def pages_of(path: Path, table: str) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            found = connection.execute("SELECT pageno FROM dbstat WHERE name = ?", (table,)).fetchall()
        except sqlite3.OperationalError:
            (root,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
            ).fetchone()
            return [root]
    return [page for (page,) in found]


def spoil(path: Path, page: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def garbage_in_bounds(path: Path) -> None:
    spoil(path, pages_of(path, "bounds")[-1], random.Random(1).randbytes(PAGE))


def zeros_in_bounds(path: Path) -> None:
    spoil(path, pages_of(path, "bounds")[-1], bytes(PAGE))


def not_a_database(path: Path) -> None:
    path.write_bytes(b"PostgreSQL" * 1000)


def someone_elses(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bounds (host, app, cpu_milli, memory_bytes)")


def from_the_future(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def without_its_meta(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta")


def a_negative_bound(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE bounds SET cpu_milli = -5 WHERE host = 'host-7'")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "notes").touch()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (halved, "malformed"),
        (emptied, "is empty"),
        (garbage_in_bounds, "malformed"),
        (zeros_in_bounds, "malformed"),
        (not_a_database, "not a database"),
        (someone_elses, "no store of Escra's"),
        (from_the_future, "schema version 99"),
        (without_its_meta, "meta has 0 rows"),
        (a_negative_bound, "CHECK"),
        (a_directory, "not a regular file"),
    ],
)
def test_an_unusable_file_is_set_aside_and_a_new_one_started(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(filled(tmp_path))
    news = News()
    with opened(tmp_path, news) as (store, recovered):
        assert says in recovered.lost
        assert (recovered.starts, dict(recovered.bounds)) == (1, {})
        (aside,) = asides(tmp_path)
        assert aside in recovered.lost
        assert recovered.lost in news.of("error")[0]
        assert store.trouble == ""
        secure(store, {WEB: Bound(1, 2)})
    # The hosts of before may still hold what nobody knows: so it stays, until someone knows better.
    with opened(tmp_path) as (store, recovered):
        assert says in recovered.lost
        assert recovered.bounds == {WEB: Bound(1, 2)}
        store.nothing_is_lost()
    with opened(tmp_path) as (_, recovered):
        assert (recovered.lost, recovered.starts) == ("", 3)
    assert len(asides(tmp_path)) == 1


def test_a_file_cut_anywhere_is_lost_or_whole(tmp_path: Path) -> None:
    body = filled(tmp_path).read_bytes()
    for length in [*range(0, len(body), len(body) // 40), len(body) - 1]:
        directory = tmp_path / str(length)
        directory.mkdir()
        (directory / "controller.db").write_bytes(body[:length])
        with opened(directory) as (_, recovered):
            assert recovered.lost != "" or recovered.bounds == many(), length


def test_any_garbage_page_is_found_or_harmless(tmp_path: Path) -> None:
    original = filled(tmp_path)
    rng = random.Random(2)
    for page in range(1, original.stat().st_size // PAGE + 1):
        directory = tmp_path / str(page)
        directory.mkdir()
        spoil(Path(shutil.copy(original, directory)), page, rng.randbytes(PAGE))
        with opened(directory) as (store, recovered):
            assert recovered.lost != "" or recovered.bounds == many(), page
            assert len(asides(directory)) == 1, page
            secure(store, {WEB: Bound(1, 1)})


def test_damage_in_the_audit_costs_no_bound(tmp_path: Path) -> None:
    path = filled(tmp_path)
    spoil(path, pages_of(path, "decisions")[-1], bytes(PAGE))
    news = News()
    with opened(tmp_path, news) as (store, recovered):
        assert (recovered.lost, recovered.starts, recovered.clean) == ("", 2, True)
        assert recovered.bounds == many()
        assert "new" in news.of("warning")[0]
        assert "damaged" in news.of("warning")[0]
        assert store.decisions() == []
    with opened(tmp_path) as (_, recovered):
        assert (recovered.lost, recovered.bounds) == ("", many())


def test_damage_that_a_query_meets_is_mended_without_a_restart(tmp_path: Path) -> None:
    path = filled(tmp_path)
    news = News()
    with opened(tmp_path, news) as (store, recovered):
        page = pages_of(path, "decisions")[-1]
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint")
        # With dd: this process must not close the file, or sqlite's locks were gone.
        dd = ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "count=1", f"seek={page - 1}", "conv=notrunc"]
        subprocess.run(dd, check=True, capture_output=True)
        with pytest.raises(StoreError, match="malformed"):
            store.decisions()
        until(lambda: news.of("warning"))
        assert store.decisions() == []
        assert store.trouble == ""
    with opened(tmp_path) as (_, recovered):
        assert (recovered.lost, recovered.bounds) == ("", many())


def test_a_log_without_its_file_is_a_loss(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as (store, _):
        secure(store, many())
        shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "controller.db").unlink()
    for _ in range(2):
        with opened(tmp_path / "two") as (_, recovered):
            assert "only its log was left" in recovered.lost
            assert dict(recovered.bounds) == {}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_somebody_removes_is_written_anew(tmp_path: Path, replaced: bool) -> None:
    news = News()
    with opened(tmp_path, news) as (store, _):
        secure(store, many())
        (tmp_path / "controller.db").unlink()
        if replaced:
            filled(tmp_path / "other").rename(tmp_path / "controller.db")
        secure(store, {WEB: Bound(1, 1)})
        until(lambda: news.of("warning"))
        assert ("replaced" if replaced else "taken away") in news.of("warning")[0]
    with opened(tmp_path) as (_, recovered):
        assert (recovered.lost, recovered.bounds) == ("", many() | {WEB: Bound(1, 1)})


def test_only_the_newest_unusable_files_are_kept(tmp_path: Path) -> None:
    for n in range(6):
        (tmp_path / "controller.db").write_text(f"nonsense {n}")
        with opened(tmp_path):
            pass
    kept = [(tmp_path / name).read_text() for name in asides(tmp_path)]
    assert kept == ["nonsense 3", "nonsense 4", "nonsense 5"]


def test_a_start_beside_another_program_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path)
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreLocked, match="another program holds a lock"):
            Store.open(tmp_path, News(), limits=QUICK)
        holder.kill()
    with opened(tmp_path) as (_, recovered):
        assert (recovered.starts, recovered.bounds) == (2, many())


# ---- as a user who may not do everything -------------------------------------------------

AS_NOBODY = """
import os, sys
from pathlib import Path
from escra_controller.store import Store

# Only now: Python may be installed where nobody may look.
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
store, recovered = Store.open(Path(sys.argv[1]), lambda level, text: None)
print(recovered.lost, store.trouble, sep="\\n")
store.close(clean=False)
"""


def start_as_nobody(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory of user 65534's."""
    if os.geteuid() != 0:
        unavailable("kernel", "becoming another user needs root")
    directory = Path("/tmp") / f"escra-nobodys-{os.getpid()}"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.mark.kernel
def test_a_file_that_may_not_be_read_is_set_aside(nobodys: Path) -> None:
    filled(nobodys).chmod(0o600)
    lost, trouble = start_as_nobody(nobodys).stdout.splitlines()
    assert "unable to open" in lost
    assert asides(nobodys)[0] in lost
    assert trouble == ""


@pytest.mark.kernel
def test_a_file_that_may_not_be_moved_is_emptied(nobodys: Path) -> None:
    """Emptied, it cannot mislead; and a directory that takes no files is no reason to stop control."""
    path = nobodys / "controller.db"
    path.write_bytes(b"nonsense")
    path.chmod(0o666)
    os.chown(nobodys, 0, 0)
    nobodys.chmod(0o755)
    for says in ("not a database", "is empty"):
        lost, trouble = start_as_nobody(nobodys).stdout.splitlines()
        assert says in lost
        assert "had to be emptied" in lost
        assert "control goes on without a store" in trouble


@pytest.mark.kernel
def test_a_file_that_can_be_neither_used_nor_moved_refuses_the_start(nobodys: Path) -> None:
    filled(nobodys).chmod(0o600)
    os.chown(nobodys, 0, 0)
    nobodys.chmod(0o755)
    result = start_as_nobody(nobodys)
    assert result.returncode != 0
    assert "StoreError: the state directory" in result.stderr
    assert "Permission denied" in result.stderr


# ---- disks that take nothing any more ----------------------------------------------------


@pytest.mark.kernel
def test_a_full_disk_costs_the_audit_before_the_bounds(disk: Path) -> None:
    news = News()
    with opened(disk, news, Limits(retry_s=1.5)) as (store, _):
        secure(store, {WEB: Bound(1, 1)})
        fill(disk)
        for n in range(30):
            store.record([decision(i, cause="x" * 500) for i in range(100)], 0.0)
            secure(store, {WEB: Bound(n, n), DB: Bound(n, n)})
        until(lambda: store.dropped >= 100)
        assert "audit rows are dropped" in store.trouble
        assert "full" in store.trouble
        secure(store, {WEB: Bound(77, 77)})
        assert asides(disk) == []
        (disk / "ballast").unlink()
        while store.trouble:
            store.record([decision(1)], 0.0)
            time.sleep(0.1)
        assert store.decisions()
    assert (len(news.of("warning")), len(news.of("info")), news.of("error")) == (1, 1, [])
    with opened(disk) as (_, recovered):
        assert recovered.bounds == {WEB: Bound(77, 77), DB: Bound(29, 29)}


def outgrow(store: Store) -> None:
    """More bounds than a full disk of 1 MiB has room for."""
    for n in range(10):
        secure(store, {(f"host-{n}-{i}", "a" * 200): Bound(n + 1, i) for i in range(1000)})


def shrink(store: Store) -> None:
    secure(store, {(f"host-{n}-{i}", "a" * 200): NOTHING for n in range(10) for i in range(1000)})


@pytest.mark.kernel
def test_a_full_disk_leaves_no_old_bounds_and_is_left_behind(disk: Path) -> None:
    news = News()
    with opened(disk, news) as (store, _):
        secure(store, {WEB: Bound(1, 1)})
        store.size("shop", cpu_milli=4000)
        fill(disk)
        outgrow(store)
        assert "control goes on without a store" in store.trouble
        assert len(asides(disk)) == 1
        assert not (disk / "controller.db").exists()
        assert len(news.of("error")) == 1
        # The crash that could happen now: what another start finds is a copy, taken in this state.
        shutil.copytree(disk, disk.parent / "crashed", ignore=shutil.ignore_patterns("ballast"))
        with pytest.raises(StoreError, match="control goes on without a store"):
            store.decisions()
        shrink(store)
        secure(store, {DB: Bound(5, 5)})
        (disk / "ballast").unlink()
        until(lambda: store.trouble == "")
        assert "a new" in news.of("warning")[-1]
        secure(store, {WEB: Bound(2, 2)})
    with opened(disk.parent / "crashed") as (_, recovered):
        assert "was given up" in recovered.lost
        assert dict(recovered.bounds) == {}
    with opened(disk) as (_, recovered):
        assert (recovered.lost, recovered.starts) == ("", 2)
        assert recovered.bounds == {WEB: Bound(2, 2), DB: Bound(5, 5)}
        assert recovered.sizes == {"shop": Size(4000, None)}


@pytest.mark.kernel
def test_a_loss_before_the_full_disk_is_still_one_after_it(disk: Path) -> None:
    (disk / "controller.db").write_bytes(b"nonsense")
    with opened(disk) as (store, recovered):
        assert "not a database" in recovered.lost
        fill(disk)
        outgrow(store)
        (disk / "ballast").unlink()
        shrink(store)
        until(lambda: store.trouble == "")
    with opened(disk) as (_, recovered):
        assert "not a database" in recovered.lost


@pytest.mark.kernel
@pytest.mark.parametrize("clean", [False, True])
def test_a_start_on_a_full_disk_still_reads_what_is_there(tmp_path: Path, disk: Path, clean: bool) -> None:
    store, _ = Store.open(tmp_path / "state", News(), limits=QUICK)
    secure(store, many(20, 5))
    if clean:
        store.close(clean=True)
    # Otherwise as a crash leaves it, with its log.
    shutil.copytree(tmp_path / "state", disk, dirs_exist_ok=True)
    store.close(clean=True)
    ballast = fill(disk)
    news = News()
    with opened(disk, news) as (store, recovered):
        assert (recovered.lost, recovered.clean, recovered.starts) == ("", clean, 2)
        assert recovered.bounds == many(20, 5)
        secure(store, {WEB: Bound(3, 3)})
        ballast.unlink()
        until(lambda: store.trouble == "")
    with opened(disk) as (_, recovered):
        assert (recovered.lost, recovered.starts) == ("", 3)
        assert recovered.bounds == many(20, 5) | {WEB: Bound(3, 3)}


@pytest.mark.kernel
def test_a_first_start_on_a_full_disk_goes_on(disk: Path) -> None:
    ballast = fill(disk)
    news = News()
    with opened(disk, news) as (store, recovered):
        assert recovered.lost == ""
        assert "control goes on without a store" in store.trouble
        assert len(news.of("error")) == 1
        secure(store, {WEB: Bound(3, 3)})
        ballast.unlink()
        until(lambda: store.trouble == "")
    with opened(disk) as (_, recovered):
        assert (recovered.lost, recovered.starts, recovered.bounds) == ("", 2, {WEB: Bound(3, 3)})


@pytest.mark.kernel
def test_a_stop_tries_once_more(disk: Path) -> None:
    ballast = fill(disk)
    store, _ = Store.open(disk, News(), limits=Limits(retry_s=3600))
    secure(store, {WEB: Bound(3, 3)})
    ballast.unlink()
    assert store.close(clean=True)
    with opened(disk) as (_, recovered):
        assert (recovered.clean, recovered.bounds) == (True, {WEB: Bound(3, 3)})


FAILING = """
import os, resource, sys, threading
from pathlib import Path
from escra_controller.storage.values import Bound
from escra_controller.storage.writer import Limits
from escra_controller.store import Store

def ask(bounds):
    done = threading.Event()
    store.secure(bounds, done.set)
    return done

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

user = int(sys.argv[2])
os.setresuid(user, user, user)
store, _ = Store.open(Path(sys.argv[1]), lambda *_: None, limits=Limits(retry_s=0.3))
assert ask({("h1", "shop"): Bound(1, 1)}).wait(5)
print("ready", flush=True)
sys.stdin.readline()
limit(1)
two = ask({("h1", "shop"): Bound(2, 2), ("h2", "shop"): Bound(2, 2)})
print(two.wait(1.0), store.trouble, flush=True)
sys.stdin.readline()
limit(resource.RLIM_INFINITY)
assert two.wait(5)
while store.trouble:
    threading.Event().wait(0.05)
assert ask({("h1", "shop"): Bound(3, 3)}).wait(5)
print("well", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def failing(directory: Path, user: int = 0) -> Iterator[Callable[[], str]]:
    """A store on whose disk every write fails after the first call; each call is one step further.

    A limit on the size of files does that, without the disk being full.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", FAILING, str(directory), str(user)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        said, asking = child.stdout, child.stdin

        def step() -> str:
            print(file=asking, flush=True)
            return said.readline()

        try:
            assert said.readline() == "ready\n"
            yield step
        finally:
            child.kill()


@pytest.mark.parametrize("well", [False, True])
def test_an_io_error_leaves_no_old_bounds(tmp_path: Path, well: bool) -> None:
    with failing(tmp_path, os.getuid()) as step:
        trouble = step()
        assert trouble.startswith("True ")
        assert "IOERR" in trouble
        assert "control goes on without a store" in trouble
        if well:
            assert step() == "well\n"
    with opened(tmp_path) as (_, recovered):
        if well:
            assert recovered.lost == ""
            assert recovered.bounds == {WEB: Bound(3, 3), DB: Bound(2, 2)}
        else:
            assert "was given up" in recovered.lost
            assert dict(recovered.bounds) == {}


@pytest.mark.kernel
@pytest.mark.parametrize("well", [False, True])
def test_old_bounds_that_cannot_be_set_aside_stay_true(nobodys: Path, well: bool) -> None:
    """Nothing is reported, so nothing grows above them."""
    path = nobodys / "controller.db"
    with failing(nobodys, 65534) as step:
        os.chown(nobodys, 0, 0)
        os.chown(path, 0, 0)
        nobodys.chmod(0o755)
        trouble = step()
        assert trouble.startswith("False ")
        assert "nothing grows above what it says" in trouble
        os.chown(nobodys, 65534, 65534)
        os.chown(path, 65534, 65534)
        if well:
            assert step() == "well\n"
    with opened(nobodys) as (_, recovered):
        assert recovered.lost == ""
        assert recovered.bounds == ({WEB: Bound(3, 3), DB: Bound(2, 2)} if well else {WEB: Bound(1, 1)})
