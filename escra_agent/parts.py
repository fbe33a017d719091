"""Which limits in the kernel are but what is left of a period, noted so that a killed agent's are made whole.

The note is a small file: a line per container, each overwritten in place, without waiting for a disk.  It
outlives the agent, not the machine, and more is not needed: limits do not either.
"""

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from escra_common.messages import CpuLimit

# The cgroup's key, what is left, the whole quota and the period; a key of 0 is a line that is free.
_LINE = struct.Struct("<QQQQ")
_HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class Part:
    """``left`` is what was written, ``whole`` what belongs there when the period is over."""

    left: CpuLimit
    whole: CpuLimit


class Parts:
    """``boot_id`` as in OriginalsStore: keys of another boot mean other cgroups."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path, self._head = path, boot_id.encode()[:_HEAD_BYTES].ljust(_HEAD_BYTES)
        self._fd = -1
        self._lines: dict[int, int] = {}
        self._free: list[int] = []

    def found(self) -> dict[int, Part]:
        """What an earlier agent noted and did not make whole, by key; nothing where that cannot be read."""
        try:
            body = self._path.read_bytes()
        except OSError:
            return {}
        if not body.startswith(self._head):
            return {}
        lines = body[_HEAD_BYTES:]
        whole_lines = len(lines) // _LINE.size * _LINE.size
        return {
            key: Part(CpuLimit(left, period), CpuLimit(quota, period))
            for key, left, quota, period in _LINE.iter_unpack(lines[:whole_lines])
            if key and left <= quota and period
        }

    def begin(self) -> None:
        """What was found is dealt with.  Where nothing can be noted, nothing is: it is for a killed agent."""
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            os.write(self._fd, self._head)

    def note(self, key: int, part: Part) -> None:
        """Before ``part.left`` is written."""
        if key not in self._lines:
            self._lines[key] = self._free.pop() if self._free else len(self._lines)
        left, whole = part.left, part.whole
        self._write(key, _LINE.pack(key, left.quota_usec or 0, whole.quota_usec or 0, whole.period_usec))

    def clear(self, key: int) -> None:
        """After the whole limit was written, or the cgroup is gone."""
        if key in self._lines:
            self._write(key, bytes(_LINE.size))
            self._free.append(self._lines.pop(key))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, key: int, line: bytes) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.pwrite(self._fd, line, _HEAD_BYTES + self._lines[key] * _LINE.size)
