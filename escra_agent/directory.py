"""One cgroup directory, with the files in it that are read again and again.

Descriptors are kept and read with pread: a tenth of the price of opening the file each time,
and a cgroup that was removed and made again under the same name answers "gone" instead of
with the newcomer's numbers.  Files are opened for writing only to write, so that looking
needs no right to change.  Everything here raises OSError as the kernel gives it.
"""

import os

# The longest file read is cpu.stat, with about 300 bytes.
_BUFFER = 4096


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

    def write(self, name: str, text: str) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        self.writes += 1

    def close(self) -> None:
        """May be called twice; the descriptors are not to be used after it."""
        while self._kept:
            os.close(self._kept.pop())


def read(fd: int) -> bytes:
    return os.pread(fd, _BUFFER, 0)


def read_number(fd: int | None) -> int:
    """0 for an optional file that is not there."""
    return 0 if fd is None else int(read(fd))


def read_fields(fd: int) -> dict[bytes, bytes]:
    """The kernel's "flat keyed" files: a name and a number per line."""
    words = read(fd).split()
    return dict(zip(words[::2], words[1::2], strict=True))
