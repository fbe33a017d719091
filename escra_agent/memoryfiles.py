"""What the kernel's memory files of one cgroup are read and written for, on either version."""

from pathlib import Path
from typing import NamedTuple, Protocol

from escra_agent.counters import MemoryReading
from escra_agent.directory import Directory, Remembered, number
from escra_common.messages import MemoryLimit
from escra_common.units import MAX_BYTES


class Pulse(NamedTuple):
    """What is looked at ten times a second; see MemoryReading.  On v2 the kernel gives notice of kills.

    ``overlooked``: a task waits although there is room (v1).
    """

    used_bytes: int
    stalled: bool
    armed: bool
    oom_kills: int
    overlooked: bool = False


class MemoryFiles(Protocol):
    """Everything raises OSError as the kernel gives it.

    ``writes`` counts the limits written; ``banded`` says that there is a memory.high.
    """

    directory: Directory
    banded: bool
    limit_file: str
    writes: int

    def pulse(self, fresh: bool) -> Pulse:
        """Cheap; where use stands still, the rest of it is as it was, unless ``fresh``."""

    def still(self) -> bool:
        """Whether use is what it was at the last ``pulse``."""

    def read(self) -> MemoryReading:
        """All of it."""

    def read_limit(self) -> MemoryLimit:
        """Cheap, too."""

    def cache_bytes(self) -> int:
        """File cache that the kernel would drop first; costs up to milliseconds on a crowded host (K22)."""

    def raise_limit(self, limit: MemoryLimit) -> None:
        """Write what differs; does not wait, if no part of ``limit`` is below what is in use."""

    def make_room(self, limit: MemoryLimit) -> None:
        """Drop file cache until ``limit`` fits, as far as that goes.  May take seconds."""

    def lower_limit(self, limit: MemoryLimit) -> None:
        """Write what differs; EBUSY, and the old limit, when more is in use than that."""

    def arm(self) -> None:
        """v1: let tasks wait at the limit rather than kill one (K11).  Nothing on v2.

        Only a page fault waits: a system call that finds no memory fails with ENOMEM, where else a task
        would be killed.  So a need had better be met before the limit is.
        """

    def disarm(self) -> None:
        """Those who wait are free to go on, or to be killed."""

    def wake(self) -> None:
        """Let waiting tasks try again (v1).  Only where there is room: those who find none are killed."""

    def notification(self) -> tuple[int, int]:
        """A descriptor and the epoll event in which the kernel gives notice on it."""

    def heard(self) -> None:
        """Ready for the next notice."""

    def failures(self, directory: Path) -> int:
        """How often that cgroup's own limit was met and, as far as v2 tells, nothing was left to free."""


def limit_at(path: Path) -> int | None:
    """A limit file of another cgroup; None is no limit."""
    return limit_bytes(path.read_bytes())


def optional_limit(directory: Directory, name: str) -> Remembered[int | None] | None:
    fd = directory.keep_optional(name)
    return None if fd is None else Remembered(fd, limit_bytes)


def limit_bytes(text: bytes) -> int | None:
    """v1 says "no limit" as a number of exbibytes, and nobody has a pebibyte."""
    text = text.strip()
    return None if text == b"max" or number(text) > MAX_BYTES else number(text)


def size(count: int) -> int:
    """Bytes in use; raises ValueError for what no machine has."""
    if count > MAX_BYTES:
        raise ValueError(f"{count} bytes are not in use anywhere")
    return count
