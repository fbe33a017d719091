"""Word from the kernel that somebody wrote a file of a cgroup: inotify on its directories.

A limit changes by a write to a file, so one that nobody has written since need not be read again.  Every
write is noticed, whoever makes it: a hierarchy has one superblock, through whatever mount or cgroup namespace
it is written (tests/kernel/test_kernel_facts.py).  Only what the kernel changes by itself makes none (K7).

The standard library has no inotify, and one read per tick is all that is wanted of it.
"""

import ctypes
import os
import struct
from collections.abc import Iterator

_MODIFY, _OVERFLOW = 0x2, 0x4000
_EVENT = struct.Struct("iIII")  # watch, what, cookie, length of the name that follows
_BUFFER = 1 << 16


class WriteNotices:
    """``trouble`` is why there are none, or ""; then everything has to be read each time."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.trouble = "" if self._fd >= 0 else os.strerror(ctypes.get_errno())

    def watch(self, directory: str) -> int | None:
        """The number that ``written`` will say for it; None when it cannot be watched, or is gone."""
        number: int = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _MODIFY)
        if number < 0:
            self.trouble = os.strerror(ctypes.get_errno())
        return number if number >= 0 else None

    def unwatch(self, number: int) -> None:
        self._libc.inotify_rm_watch(self._fd, number)  # fails when its directory is gone: all the better

    def written(self) -> set[int] | None:
        """What was written to since the last call, or has gone; None when too much was to be remembered."""
        found: set[int] = set()
        while self._fd >= 0:
            try:
                events = os.read(self._fd, _BUFFER)
            except BlockingIOError:
                break
            for number, what in _parsed(events):
                if what & _OVERFLOW:
                    return None
                found.add(number)
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parsed(events: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(events):
        number, what, _, length = _EVENT.unpack_from(events, at)
        yield number, what
        at += _EVENT.size + length
