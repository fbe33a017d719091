"""The kernel's memory files of one cgroup, version 2."""

import contextlib
import errno
import os
import select
from pathlib import Path

from escra_agent.counters import MemoryReading
from escra_agent.directory import (
    NUMBER,
    Directory,
    Remembered,
    number,
    read,
    read_field,
    read_fields,
    read_number,
)
from escra_agent.memoryfiles import Pulse, limit_bytes, optional_limit, size
from escra_common.messages import MemoryLimit
from escra_common.units import MAX_BYTES


# memory.max, memory.high, memory.swap.max   104857600   ("max": no limit)
# memory.events                              low 0
#                                            high 12     (times memory.high was passed)
#                                            max 3       (times the limit was met)
#                                            oom 1       (times nothing was left to free there)
#                                            oom_kill 1
class MemoryFilesV2:
    banded = True
    limit_file = "memory.max"

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.writes = 0
        self._used = directory.keep("memory.current")
        self._max = Remembered(directory.keep("memory.max"), limit_bytes)
        self._high = Remembered(directory.keep("memory.high"), limit_bytes)
        self._swap = optional_limit(directory, "memory.swap.max")
        self._events = directory.keep("memory.events")
        self._stat = directory.keep("memory.stat")
        self._kills = 0
        self._text = b""

    def pulse(self, fresh: bool) -> Pulse:
        self._text = read(self._used, NUMBER)
        return Pulse(size(number(self._text)), False, False, self._kills)

    def still(self) -> bool:
        return read(self._used, NUMBER) == self._text

    def read(self) -> MemoryReading:
        events = read_fields(self._events)
        self._kills = number(events.get(b"oom_kill", b"0"))
        return MemoryReading(
            size(read_number(self._used)),
            self.read_limit(),
            number(events[b"high"]),
            number(events[b"max"]),
            number(events[b"oom"]),
            self._kills,
        )

    def read_limit(self) -> MemoryLimit:
        return MemoryLimit(self._max(), self._high(), None if self._swap is None else self._swap())

    def cache_bytes(self) -> int:
        return size(read_field(self._stat, b"inactive_file"))

    def raise_limit(self, limit: MemoryLimit) -> None:
        now = self.read_limit()
        self._put("memory.max", now.max_bytes, limit.max_bytes)
        self._put("memory.high", now.high_bytes, limit.high_bytes)
        self._put_swap(now, limit)

    def make_room(self, limit: MemoryLimit) -> None:
        # memory.reclaim (5.19) throttles nobody (K15).  Without it, the write of memory.high drops the
        # cache: on those kernels it still waits for that (K12).
        wanted = min(limit.max_bytes or MAX_BYTES, limit.high_bytes or MAX_BYTES)
        excess = read_number(self._used) - wanted
        if excess > 0:
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                self.directory.write("memory.reclaim", str(excess))

    def lower_limit(self, limit: MemoryLimit) -> None:
        now = self.read_limit()
        self._put("memory.high", now.high_bytes, limit.high_bytes)
        used = read_number(self._used)
        if limit.max_bytes is not None and used > limit.max_bytes:
            # K12: writing memory.max now could kill.
            self._put("memory.high", limit.high_bytes, now.high_bytes)
            raise OSError(errno.EBUSY, f"{used} bytes are in use")
        self._put("memory.max", now.max_bytes, limit.max_bytes)
        self._put_swap(now, limit)

    def arm(self) -> None:
        pass

    def disarm(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def notification(self) -> tuple[int, int]:
        # kernfs gives notice once, and again when this same descriptor has been read since (K10).
        return self._events, select.EPOLLPRI

    def heard(self) -> None:
        read(self._events)

    def failures(self, directory: Path) -> int:
        words = (directory / "memory.events.local").read_bytes().split()
        return number(words[words.index(b"oom") + 1])

    def _put_swap(self, now: MemoryLimit, limit: MemoryLimit) -> None:
        if self._swap is not None:
            self._put("memory.swap.max", now.swap_bytes, limit.swap_bytes)

    def _put(self, name: str, now: int | None, wanted: int | None) -> None:
        if now != wanted:
            # K12: with O_NONBLOCK newer kernels do not wait until it fits.
            self.directory.write(name, "max" if wanted is None else str(wanted), os.O_NONBLOCK)
            self.writes += 1
