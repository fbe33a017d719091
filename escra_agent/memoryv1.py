"""The kernel's memory files of one cgroup, version 1."""

import contextlib
import os
import select
from pathlib import Path

from escra_agent.counters import MemoryReading
from escra_agent.directory import (
    NUMBER,
    Directory,
    Remembered,
    number,
    parse_fields,
    read,
    read_field,
    read_number,
)
from escra_agent.guard import turn_killer_on
from escra_agent.memoryfiles import Pulse, limit_bytes, optional_limit, size
from escra_common.messages import MemoryLimit

# How near to its limit a cgroup is in whose name tasks wait (v1): the kernel charges up to 64 pages
# at once, and what a task just ahead freed does not change whose limit it was.
_AT_THE_LIMIT_BYTES = 1 << 20


# memory.limit_in_bytes      9223372036854771712   (no limit)
# memory.memsw.limit_in_bytes                      (memory and swap; only with swap accounting)
# memory.failcnt             17                    (times the limit was met)
# memory.oom_control         oom_kill_disable 0
#                            under_oom 0           (tasks wait, here or in a cgroup above)
#                            oom_kill 1
class MemoryFilesV1:
    banded = False
    limit_file = "memory.limit_in_bytes"

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.writes = 0
        self._used = directory.keep("memory.usage_in_bytes")
        self._limit = Remembered(directory.keep("memory.limit_in_bytes"), limit_bytes)
        self._memsw = optional_limit(directory, "memory.memsw.limit_in_bytes")
        self._oom_control = directory.keep("memory.oom_control")
        self._oom = Remembered(self._oom_control, parse_fields)
        self._failcnt = directory.keep("memory.failcnt")
        self._stat = directory.keep("memory.stat")
        self._event: int | None = None
        self._text, self._calm = b"", False
        self._pulse = Pulse(0, False, False, 0)

    def pulse(self, fresh: bool) -> Pulse:
        text = read(self._used, NUMBER)
        if text == self._text and self._calm and not fresh:
            return self._pulse
        used = size(number(text))
        oom = self._oom()
        armed = oom[b"oom_kill_disable"] != b"0"
        waiting = armed and oom[b"under_oom"] != b"0"
        stalled = waiting and self._at_the_limit(used)
        kills = number(oom.get(b"oom_kill", b"0"))
        self._text, self._calm = text, not (waiting or self._at_the_limit(used))
        self._pulse = Pulse(used, stalled, armed, kills, waiting and not stalled)
        return self._pulse

    def still(self) -> bool:
        return read(self._used, NUMBER) == self._text

    def read(self) -> MemoryReading:
        used, stalled, armed, kills, _ = self.pulse(True)
        failed = read_number(self._failcnt)
        return MemoryReading(used, self.read_limit(), 0, failed, kills, kills, stalled, armed)

    def read_limit(self) -> MemoryLimit:
        return MemoryLimit(self._limit(), None, None if self._memsw is None else self._memsw())

    def cache_bytes(self) -> int:
        return size(read_field(self._stat, b"total_inactive_file"))

    # K20: memory alone may never be above memory and swap together.
    def raise_limit(self, limit: MemoryLimit) -> None:
        now = self.read_limit()
        self._put_memsw(now, limit)
        self._put("memory.limit_in_bytes", now.max_bytes, limit.max_bytes)

    def make_room(self, limit: MemoryLimit) -> None:
        # Nothing else on v1 drops cache down to a given size.
        self.lower_limit(limit)

    def lower_limit(self, limit: MemoryLimit) -> None:
        now = self.read_limit()
        self._put("memory.limit_in_bytes", now.max_bytes, limit.max_bytes)
        self._put_memsw(now, limit)

    def arm(self) -> None:
        self.directory.write("memory.oom_control", "1")

    def disarm(self) -> None:
        self.directory.write("memory.oom_control", "0")
        for folder, _, _ in os.walk(self.directory.path):
            turn_killer_on(folder)

    def wake(self) -> None:
        # A raise wakes those who wait.  One that comes just before a task falls asleep may wake nobody
        # (inferred, never reproduced); turning the killer on wakes all, too.
        self.directory.write("memory.oom_control", "0")
        self.directory.write("memory.oom_control", "1")

    def notification(self) -> tuple[int, int]:
        if self._event is None:
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.directory.adopt(self._event)
            self.directory.write("cgroup.event_control", f"{self._event} {self._oom_control}")
        return self._event, select.EPOLLIN

    def heard(self) -> None:
        if self._event is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)

    def failures(self, directory: Path) -> int:
        return number((directory / "memory.failcnt").read_bytes())

    def _at_the_limit(self, used_bytes: int) -> bool:
        limit = self._limit()
        return limit is not None and used_bytes > limit - _AT_THE_LIMIT_BYTES

    def _put_memsw(self, now: MemoryLimit, limit: MemoryLimit) -> None:
        if self._memsw is not None:
            self._put("memory.memsw.limit_in_bytes", now.swap_bytes, limit.swap_bytes)

    def _put(self, name: str, now: int | None, wanted: int | None) -> None:
        if now != wanted:
            self.directory.write(name, "-1" if wanted is None else str(wanted))
            self.writes += 1
