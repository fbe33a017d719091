"""A lock file: one holder at a time, and the kernel lets go of it however the holder ends."""

import fcntl
import os
import time
from pathlib import Path

from escra_common.errors import EscraError

# Whoever asks for the holder has it for an instant: a refusal must outlast that.
TRIES, BETWEEN_TRIES_S = 5, 0.001


class LockError(EscraError):
    """The file cannot be opened, so nobody can tell whether somebody holds it."""


class Lock:
    """An flock on ``path``, which is made, with its directory, where it does not exist, and never removed.

    Held until ``release`` or the end of the process, ``kill -9`` included: it is never left over.  Child
    processes do not inherit it.  On a network file system it may not exclude those on other machines.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Whether it is ours now, or was already; at once, or within some milliseconds.  Raises LockError."""
        if self._fd is not None:
            return True
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LockError(f"cannot open the lock {self.path}: {error.strerror}") from error
        try:
            if not _locked(fd):
                os.close(fd)
                return False
            # For people and for ``holder``; what counts is the flock.
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(fd)
            raise LockError(f"cannot lock {self.path}: {error.strerror}") from error
        self._fd = fd
        return True

    def holder(self) -> int | None:
        """The process that holds it, as it wrote it down; None when nobody does, or it is not known."""
        if self._fd is not None:
            return os.getpid()
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # A shared lock is refused only while somebody holds the exclusive one.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _number(os.pread(fd, 32, 0))
        finally:
            os.close(fd)
        return None

    def release(self) -> None:
        """May be called when it is not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def _locked(fd: int) -> bool:
    for _ in range(TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(BETWEEN_TRIES_S)
        else:
            return True
    return False


def _number(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None
