"""Damaged files are reported and set aside, and a new store is started."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escra_controller.bounds import Bound
from escra_controller.storage.database import StoreError
from escra_controller.storage.recovery import StoreLocked
from escra_controller.store import Store
from tests.controller.storing import (
    QUICK,
    News,
    asides,
    decision,
    many,
    nobodys_directory,
    opened,
    secure,
    until,
)
from tests.needs import unavailable

WEB = ("h1", "shop")
PAGE = 4096


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
    if os.geteuid() != 0:
        unavailable("kernel", "becoming another user needs root")
    with nobodys_directory() as directory:
        yield directory


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
