"""One cgroup as the agent sees it: counters in, limits out, identity, its place in the tree."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from escra_agent.counters import Counters, MemoryReading
from escra_agent.cpufiles import CpuFiles, CpuFilesV1, CpuFilesV2
from escra_agent.directory import Directory
from escra_agent.errors import CgroupGone, CgroupUnusable, kernel_errors
from escra_agent.memorygroup import MemoryGroup
from escra_common.messages import CpuLimit

__all__ = ["Cgroup", "Counters", "MemoryReading", "describe", "share", "write_rank"]


class Cgroup:
    """Made by Hierarchy; holds about twenty descriptors until ``close``.

    Every method may raise CgroupGone once the cgroup is removed, and CgroupDenied.  ``key`` is
    the inode of the CPU directory, and names this incarnation of the path and no other.
    ``memory_group`` is None where there is no memory controller for it.
    """

    def __init__(self, path: str, paths: Mapping[str, str], directories: Mapping[str, str | None]) -> None:
        """``directories`` by controller: cpu and cpuacct (on v2 the same), cpuset and memory or None."""
        self.path = path
        self.paths = dict(paths)
        self.depth = path.count("/")
        self._cpuset = Path(directories["cpuset"]) if directories["cpuset"] else None
        self._kept: list[Directory] = []
        self.memory_group: MemoryGroup | None = None
        self._errors = kernel_errors(f"read cgroup {path}")
        try:
            self._cpu = self._open_cpu(str(directories["cpu"]), str(directories["cpuacct"]))
            self.memory_group = self._open_memory(directories["memory"])
        except BaseException:
            self.close()
            raise
        self.key = self._cpu.directory.inode
        # On v1 it may come a moment later than the rest.
        self.awaits_memory = directories["memory"] is not None and self.memory_group is None

    @property
    def writes(self) -> int:
        """Limit files written so far: each write gave the group one more quota to use (K3)."""
        return self._cpu.directory.writes

    @property
    def sign(self) -> tuple[int, bytes]:
        """A descriptor, and what it says for as long as no CPU time is used after the last ``read``."""
        return self._cpu.sign

    @property
    def directories(self) -> list[str]:
        """Those with limits in them."""
        memory = self.memory_group
        cpu = self._cpu.directory.path
        return [cpu] if memory is None or memory.directory == cpu else [cpu, memory.directory]

    def read(self, known: CpuLimit | None = None, *, fresh: bool = False) -> Counters:
        """Counters and limit, which is not read if it is ``known``.

        The v1 period and the burst are up to ten reads old unless ``fresh``.
        """
        with self._errors:
            return self._cpu.read(known, fresh)

    def read_limit(self) -> CpuLimit:
        """As the kernel holds it now; the kernel may have changed the period by itself (K7)."""
        with self._errors:
            return self._cpu.read_limit()

    def write_limit(self, limit: CpuLimit) -> CpuLimit:
        """Put ``limit`` in force and return what the kernel then holds.

        Only what differs is written, since every write refills the quota (K3).  At no time in
        between is quota plus burst above both the old and the new limit.  Raises LimitRejected
        when the kernel refuses; part of the change may then be in force, and ``read_limit`` tells.
        """
        with kernel_errors(f"limit cgroup {self.path} to {describe(limit)}"):
            before = self._cpu.read_limit()
            # K8: the kernel refuses a quota below the burst.
            if limit.burst_usec < before.burst_usec:
                self._cpu.write_burst(limit.burst_usec)
            self._cpu.write_bandwidth(before, limit)
            if limit.burst_usec > before.burst_usec:
                self._cpu.write_burst(limit.burst_usec)
            return self._cpu.read_limit()

    def still_there(self) -> bool:
        """Whether the path still leads to this incarnation."""
        try:
            return os.stat(self._cpu.directory.path).st_ino == self.key
        except FileNotFoundError:
            return False

    def cap_milli(self) -> int | None:
        """The tightest limit among the cgroups above, in millicores, rounded down; None when unlimited."""
        above = Path(self._cpu.directory.path).parents[: self.depth - 1]
        with self._errors:
            caps = [self._cpu.cap_milli(directory) for directory in above]
        return min((cap for cap in caps if cap is not None), default=None)

    def pinned(self) -> bool:
        """Whether its cpuset is narrower than the one it is in."""
        if self._cpuset is None:
            return False
        with self._errors:
            own = _effective_cpus(self._cpuset)
            return own is not None and own != _effective_cpus(self._cpuset.parent)

    def memory(self) -> MemoryReading | None:
        """None where there is no memory controller for this cgroup."""
        return None if self.memory_group is None else self.memory_group.read()

    def close(self) -> None:
        if self.memory_group is not None:
            self.memory_group.close()
        for directory in self._kept:
            directory.close()

    def _open_cpu(self, cpu: str, cpuacct: str) -> CpuFiles:
        with kernel_errors(f"open cgroup {self.path}"):
            directory = self._keep(cpu)
        try:
            with kernel_errors(f"open the CPU files of cgroup {self.path}"):
                if cpu == cpuacct and os.path.exists(f"{cpu}/cpu.max"):
                    return CpuFilesV2(directory)
                return CpuFilesV1(directory, self._keep(cpuacct))
        except CgroupGone as error:
            # On v1 the hierarchies of a new cgroup come one after the other: wait, it is not there yet.
            if os.path.exists(f"{cpu}/cgroup.controllers"):
                raise CgroupUnusable(
                    f"cgroup {self.path} has no CPU limit: the cpu controller is not enabled for it; "
                    "set a CPUQuota= or CPUWeight= on its systemd unit, or give its container a --cpus"
                ) from error
            raise

    def _open_memory(self, directory: str | None) -> MemoryGroup | None:
        if directory is None:
            return None
        # Its own path on v1, that of the v2 tree otherwise (and on a hybrid host either).
        own = (self.paths.get(controller, "/") for controller in ("memory", ""))
        path = next((path for path in own if directory.endswith(path)), self.path)
        try:
            return MemoryGroup(directory, path)
        except CgroupGone:
            return None

    def _keep(self, path: str) -> Directory:
        directory = Directory(path)
        self._kept.append(directory)
        return directory


def describe(limit: CpuLimit) -> str:
    """
    >>> describe(CpuLimit(50_000, 100_000, 10_000))
    '50000 us per 100000 us with a burst of 10000 us'
    """
    quota = "no limit" if limit.quota_usec is None else f"{limit.quota_usec} us"
    burst = f" with a burst of {limit.burst_usec} us" if limit.burst_usec else ""
    return f"{quota} per {limit.period_usec} us{burst}"


def share(limit: CpuLimit) -> float:
    """Cores, burst left out; infinite without a limit."""
    return math.inf if limit.quota_usec is None else limit.quota_usec / limit.period_usec


def write_rank(old: CpuLimit, new: CpuLimit, depth: int) -> tuple[bool, int]:
    """Sort key for several writes at once: what shrinks, children first; then what grows, parents first.

    On v1 the kernel refuses any other order (K9), and in this one a sum never overshoots.
    """
    grows = share(new) > share(old)
    return (grows, depth if grows else -depth)


def _effective_cpus(cpuset: Path) -> bytes | None:
    """As the kernel lists them, ``0-3,8``; None where the cpuset controller is not enabled."""
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus"):
        try:
            return (cpuset / name).read_bytes()
        except FileNotFoundError:
            continue
    return None
