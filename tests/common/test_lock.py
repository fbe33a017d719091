"""One holder at a time, with real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from escra_common.lock import Lock, LockError

HOLD = """
import sys
from escra_common.lock import Lock
print(Lock(sys.argv[1]).try_acquire(), flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has tried to take the lock, and lives until the end of the block."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "True\n"
            yield process
        finally:
            process.kill()


def test_it_is_refused_while_another_process_lives_and_free_after_a_kill(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "made" / "lock")
    with holding(lock.path) as other:
        assert not lock.try_acquire()
        assert lock.holder() == other.pid
        other.kill()
        other.wait()
        assert lock.holder() is None
        assert lock.try_acquire()
    lock.release()


def test_release_lets_the_next_one_in(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.try_acquire()
    assert first.try_acquire(), "it is ours already"
    assert not second.try_acquire()
    assert first.holder() == second.holder() == os.getpid()
    first.release()
    first.release()
    assert first.holder() is None
    assert second.try_acquire()
    second.release()


def test_a_child_does_not_keep_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert lock.try_acquire()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        assert Lock(lock.path).try_acquire()
        child.kill()


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert Lock(tmp_path / "lock").holder() is None
    assert not (tmp_path / "lock").exists()


def test_a_place_where_no_file_can_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match="cannot open the lock"):
        Lock(tmp_path / "file" / "lock").try_acquire()
