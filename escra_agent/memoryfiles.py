"""What a cgroup uses and may use of memory, and how often it ran out.

memory.stat is never read: it can take milliseconds to seconds on hosts with many cgroups (K22).
"""

from dataclasses import dataclass

from escra_agent.directory import Directory, read, read_fields, read_number

# v1 shows "no limit" as the largest number of bytes in whole pages: 9223372036854771712 with
# pages of 4 KiB.  Nobody has an exbibyte.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """``oom_events`` and ``oom_kills`` are cumulative; v1 counts kills only, so there they are the same."""

    used_bytes: int
    limit_bytes: int | None
    oom_events: int
    oom_kills: int


class MemoryFiles:
    """The files of either version, whichever the directory has; raises OSError as the kernel gives it."""

    def __init__(self, directory: Directory) -> None:
        v1 = directory.keep_optional("memory.usage_in_bytes")
        self._used = directory.keep("memory.current") if v1 is None else v1
        self._limit = directory.keep("memory.max" if v1 is None else "memory.limit_in_bytes")
        self._events = directory.keep("memory.events" if v1 is None else "memory.oom_control")

    def read(self) -> MemoryReading:
        # memory.events (v2): oom 3, oom_kill 1;  memory.oom_control (v1): under_oom 0, oom_kill 1
        events = read_fields(self._events)
        kills = int(events.get(b"oom_kill", 0))
        limit = read(self._limit).strip()
        return MemoryReading(
            used_bytes=read_number(self._used),
            limit_bytes=None if limit == b"max" or int(limit) >= _NO_LIMIT else int(limit),
            oom_events=int(events.get(b"oom", kills)),
            oom_kills=kills,
        )
