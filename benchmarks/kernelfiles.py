"""A cgroup's limits and use as the kernel's files say them; nothing of Escra is asked."""

import math
import os
import time
from pathlib import Path
from typing import NamedTuple

from escra_agent.counters import Counters
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit

PERIOD_USEC = 100_000


class Limits(NamedTuple):
    """Of one cgroup; infinite where there is none."""

    cpu_cores: float
    memory_bytes: float


class KernelFiles:
    """One cgroup's files, open until ``close``; cgroup v1 and v2."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        v2 = hierarchy.version == "v2"
        self._v2 = v2
        self._unified = str(hierarchy.unified)
        self._mounts = hierarchy.mounts
        self._path = path
        self._memory = self._open("memory", "memory.max" if v2 else "memory.limit_in_bytes")
        self._cpu = (
            [self._open("cpu", "cpu.max")]
            if v2
            else [self._open("cpu", "cpu.cfs_quota_us"), self._open("cpu", "cpu.cfs_period_us")]
        )
        burst = "cpu.max.burst" if v2 else "cpu.cfs_burst_us"
        if self._where("cpu", burst).exists():
            self._cpu.append(self._open("cpu", burst))
        self._stat = self._open("cpu", "cpu.stat")
        self._usage = self._stat if v2 else self._open("cpuacct", "cpuacct.usage")

    def raw_limits(self) -> tuple[bytes, ...]:
        """The contents of the files that make the limits, to compare."""
        return tuple(os.pread(fd, 64, 0) for fd in (*self._cpu, self._memory))

    def limits(self, raw: tuple[bytes, ...]) -> Limits:
        *cpu, memory = raw
        numbers = [
            math.inf if word in (b"max", b"-1") else int(word) for text in cpu for word in text.split()
        ]
        quota, period, burst = (*numbers, 0)[:3]
        # v1 says "no limit" by a number near 2^63.
        size = math.inf if memory.strip() == b"max" else int(memory)
        return Limits((quota + burst) / period, math.inf if size > 1 << 60 else size)

    def counters(self, limits: Limits) -> Counters:
        """``limits`` are those in force, of the usual period of 100 ms."""
        stat = self._stats()
        if self._v2:
            used_usec, throttled_usec = stat[b"usage_usec"], stat[b"throttled_usec"]
        else:
            used_usec, throttled_usec = self._used_ns() // 1000, stat[b"throttled_time"] // 1000
        cores = limits.cpu_cores
        quota_usec = None if math.isinf(cores) else int(cores * PERIOD_USEC)
        return Counters(
            time.monotonic_ns() // 1000,
            used_usec,
            stat[b"nr_periods"],
            stat[b"nr_throttled"],
            throttled_usec,
            CpuLimit(quota_usec, PERIOD_USEC),
        )

    def used_s(self) -> float:
        return (self._stats()[b"usage_usec"] if self._v2 else self._used_ns() // 1000) / 1e6

    def throttled_s(self) -> float:
        stat = self._stats()
        return stat[b"throttled_usec"] / 1e6 if self._v2 else stat[b"throttled_time"] / 1e9

    def close(self) -> None:
        for fd in {*self._cpu, self._memory, self._stat, self._usage}:
            os.close(fd)

    def _stats(self) -> dict[bytes, int]:
        words = os.pread(self._stat, 4096, 0).split()
        return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    def _used_ns(self) -> int:
        return int(os.pread(self._usage, 64, 0))

    def _where(self, controller: str, name: str) -> Path:
        return Path(self._mounts.get(controller) or self._unified, self._path.strip("/"), name)

    def _open(self, controller: str, name: str) -> int:
        return os.open(self._where(controller, name), os.O_RDONLY)
