"""The memory side of one cgroup: use and limits, and whose limit it was when somebody was killed."""

import os
import re
from pathlib import Path, PurePosixPath

from escra_agent.counters import MemoryReading
from escra_agent.directory import Directory
from escra_agent.errors import WHY_MEMORY_REJECTED, CgroupGone, kernel_errors
from escra_agent.memoryfiles import MemoryFiles, Pulse, limit_at
from escra_agent.memoryv1 import MemoryFilesV1
from escra_agent.memoryv2 import MemoryFilesV2
from escra_common.messages import MemoryLimit
from escra_common.units import format_bytes

# K13: before, tasks could live-lock at memory.high.
_LEAST_KERNEL_V2 = (5, 9)


class MemoryGroup:
    """Holds about eight descriptors until ``close``; methods raise as those of Cgroup do."""

    def __init__(self, directory: str, path: str) -> None:
        self.path = path
        self._errors = kernel_errors(f"read the memory of cgroup {path}")
        with kernel_errors(f"open the memory files of cgroup {path}"):
            self._directory = Directory(directory)
            try:
                v1 = self._directory.has("memory.usage_in_bytes")
                self._files: MemoryFiles = (MemoryFilesV1 if v1 else MemoryFilesV2)(self._directory)
            except BaseException:
                self._directory.close()
                raise
        # The file that turns the OOM killer off and on (v1).
        self.switch = f"{directory}/memory.oom_control"
        # Nearest first.
        above = zip(Path(directory).parents, PurePosixPath(path).parents, strict=False)
        self._above = [(place, str(name)) for place, name in above if str(name) != "/"]

    @property
    def directory(self) -> str:
        return self._directory.path

    @property
    def banded(self) -> bool:
        """Whether there is a memory.high to stand below the limit: cgroup v2."""
        return self._files.banded

    @property
    def writes(self) -> int:
        return self._files.writes

    def problem(self) -> str:
        """Why memory cannot be managed on this kernel; empty when it can."""
        release = os.uname().release
        if not self.banded or kernel_version(release) >= _LEAST_KERNEL_V2:
            return ""
        return f"Linux {release} can hang a container at memory.high; memory needs Linux 5.9 or later"

    # ---- looking -------------------------------------------------------------------

    def pulse(self, *, fresh: bool = True) -> Pulse:
        """Unless ``fresh``, only use is looked at for as long as it stands still, away from the limit."""
        with self._errors:
            return self._files.pulse(fresh)

    def still(self) -> bool:
        """Whether use is what it was at the last ``pulse``."""
        with self._errors:
            return self._files.still()

    def read(self) -> MemoryReading:
        with self._errors:
            return self._files.read()

    def read_limit(self) -> MemoryLimit:
        with self._errors:
            return self._files.read_limit()

    def cache_bytes(self) -> int:
        """Only on an event, or rarely (K22)."""
        with self._errors:
            return self._files.cache_bytes()

    def needed_bytes(self) -> int:
        """In use and not to be had back; as dear as ``cache_bytes``."""
        with self._errors:
            return max(0, self._files.pulse(True).used_bytes - self._files.cache_bytes())

    def cap_bytes(self) -> int | None:
        """The tightest limit among the cgroups above; None when unlimited."""
        with self._errors:
            caps = [limit_at(place / self._files.limit_file) for place, _ in self._above]
        return min((cap for cap in caps if cap is not None), default=None)

    def failures(self) -> list[int]:
        """How often the own limit, and those of the cgroups above from the nearest on, could not be kept."""
        with self._errors:
            return [
                self._files.failures(place)
                for place in (Path(self._directory.path), *(place for place, _ in self._above))
            ]

    def cause(self, before: list[int], after: list[int]) -> str:
        """Whose limit it was that killed, from ``failures`` before and after.

        A kill is counted where the victim is, but the failure where the limit is.
        """
        with self._errors:
            if after[0] > before[0]:
                return f"its own limit of {format_bytes(self._files.read_limit().max_bytes)}"
        for was, now, (_, name) in zip(before[1:], after[1:], self._above, strict=False):
            if now > was:
                return f"the limit of {name} above it"
        return "the host ran out of memory"

    def notification(self) -> tuple[int, int]:
        with self._errors:
            return self._files.notification()

    def heard(self) -> None:
        with self._errors:
            self._files.heard()

    # ---- writing -------------------------------------------------------------------

    def raise_limit(self, limit: MemoryLimit) -> MemoryLimit:
        """Put ``limit`` in force and return what the kernel then holds; does not wait.  See MemoryFiles."""
        with self._writing(limit):
            self._files.raise_limit(limit)
            return self._files.read_limit()

    def make_room(self, limit: MemoryLimit) -> None:
        """May take seconds: never in the event loop."""
        with self._writing(limit):
            self._files.make_room(limit)

    def lower_limit(self, limit: MemoryLimit) -> MemoryLimit:
        """Raises LimitRejected, with the old limit in force, when more is in use."""
        with self._writing(limit):
            self._files.lower_limit(limit)
            return self._files.read_limit()

    def arm(self) -> None:
        with kernel_errors(f"turn the OOM killer off for cgroup {self.path}"):
            self._files.arm()

    def disarm(self) -> None:
        with kernel_errors(f"turn the OOM killer on for cgroup {self.path}"):
            self._files.disarm()

    def wake(self) -> None:
        with kernel_errors(f"wake the tasks of cgroup {self.path}"):
            self._files.wake()

    def again(self) -> "MemoryGroup":
        """The same cgroup with descriptors of its own, for another thread; CgroupGone if it was made anew."""
        again = MemoryGroup(self._directory.path, self.path)
        if again._directory.inode != self._directory.inode:
            again.close()
            raise CgroupGone(f"cgroup {self.path} was made anew")
        return again

    def close(self) -> None:
        self._directory.close()

    def _writing(self, limit: MemoryLimit) -> kernel_errors:
        return kernel_errors(
            f"limit the memory of cgroup {self.path} to {describe_memory(limit)}", WHY_MEMORY_REJECTED
        )


def describe_memory(limit: MemoryLimit) -> str:
    """
    >>> describe_memory(MemoryLimit(64 << 20)), describe_memory(MemoryLimit(None))
    ('64.0MiB', 'no limit')
    """
    return "no limit" if limit.max_bytes is None else format_bytes(limit.max_bytes)


def kernel_version(release: str) -> tuple[int, ...]:
    """
    >>> kernel_version("6.1.0-18-amd64")
    (6, 1)
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return tuple(map(int, match.groups())) if match else (0, 0)
