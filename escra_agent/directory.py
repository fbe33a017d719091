"""One cgroup directory, with the files in it that are read again and again.

Descriptors are kept and read with pread: a tenth of the price of opening the file each time,
and a cgroup that was removed and made again under the same name answers "gone" instead of
with the newcomer's numbers.  Files are opened for writing only to write, so that looking
needs no right to change.  Everything here raises OSError as the kernel gives it.
"""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# The longest file read ten times a second is cpu.stat, with about 300 bytes.
_BUFFER = 4096
# memory.stat has two to four thousand bytes by now.
_LONG_BUFFER = 1 << 14
_MAX_COUNT = 2**63 - 1
# Enough for any number that a kernel prints.
NUMBER = 64


class Directory:
    """``writes`` counts the files written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept = [self._fd]
        self.inode = os.fstat(self._fd).st_ino
        self.writes = 0

    def keep(self, name: str) -> int:
        """A descriptor for ``read``, open until ``close``."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
        self._kept.append(fd)
        return fd

    def keep_optional(self, name: str) -> int | None:
        """None when this kernel or this cgroup has no such file."""
        try:
            return self.keep(name)
        except FileNotFoundError:
            return None

    def adopt(self, fd: int) -> None:
        """Close this one, too."""
        self._kept.append(fd)

    def has(self, name: str) -> bool:
        return os.access(name, os.F_OK, dir_fd=self._fd)

    def write(self, name: str, text: str, flags: int = 0) -> None:
        """``flags`` such as O_NONBLOCK are added for opening."""
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC | flags, dir_fd=self._fd)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        self.writes += 1

    def close(self) -> None:
        """May be called twice; the descriptors are not to be used after it."""
        self._fd = -1
        while self._kept:
            os.close(self._kept.pop())


class Remembered(Generic[T]):
    """A kept file that seldom changes: read each time, but parsed only when it did."""

    def __init__(self, fd: int, parse: Callable[[bytes], T]) -> None:
        self._fd = fd
        self._parse = parse
        self._text: bytes | None = None
        self._value: T

    def __call__(self) -> T:
        text = read(self._fd)
        if text != self._text:
            self._value, self._text = self._parse(text), text
        return self._value


def read(fd: int, most: int = _BUFFER) -> bytes:
    """A small buffer is much cheaper."""
    return os.pread(fd, most, 0)


def number(text: bytes) -> int:
    """A count as the kernel prints it; raises ValueError for what could not be told to the controller."""
    value = int(text)
    if not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"{value} is no count")
    return value


def read_number(fd: int | None) -> int:
    """0 for an optional file that is not there."""
    return 0 if fd is None else number(read(fd, NUMBER))


def read_fields(fd: int) -> dict[bytes, bytes]:
    """The kernel's "flat keyed" files: a name and a number per line."""
    return parse_fields(read(fd))


def read_field(fd: int, name: bytes) -> int:
    """One number of a long one such as memory.stat, not its first; raises ValueError when it is not there."""
    text = read(fd, _LONG_BUFFER)
    start = text.index(b"\n%b " % name) + len(name) + 2
    return number(text[start : text.index(b"\n", start)])


def parse_fields(text: bytes) -> dict[bytes, bytes]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))
