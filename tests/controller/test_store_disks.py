"""Disks that take nothing any more: never a lie about bounds, and never in the way of control."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escra_controller.bounds import NOTHING, Bound
from escra_controller.storage.database import StoreError
from escra_controller.storage.values import Size
from escra_controller.storage.writer import Limits
from escra_controller.store import Store
from tests.controller.storing import (
    QUICK,
    News,
    asides,
    decision,
    fill,
    many,
    nobodys_directory,
    opened,
    secure,
    small_disk,
    until,
)
from tests.needs import unavailable

WEB, DB = ("h1", "shop"), ("h2", "shop")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """1 MiB of it."""
    if os.geteuid() != 0:
        unavailable("kernel", "mounting a small disk needs root")
    with small_disk(tmp_path / "disk", 1024) as path:
        yield path


@pytest.fixture
def nobodys() -> Iterator[Path]:
    if os.geteuid() != 0:
        unavailable("kernel", "becoming another user needs root")
    with nobodys_directory() as directory:
        yield directory


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
