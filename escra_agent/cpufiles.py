"""The kernel's CPU files of one cgroup: version 1 and version 2 behind one face."""

import time
from pathlib import Path
from typing import Protocol

from escra_agent.counters import Counters
from escra_agent.directory import NUMBER, Directory, number, parse_fields, read, read_fields, read_number
from escra_common.messages import CpuLimit
from escra_common.units import MAX_PERIOD_USEC, MIN_PERIOD_USEC

# The period (v1) and the burst practically never change, unless Escra changes them.
_REFRESH_READS = 10
# The kernel takes quotas of up to 2^44 us; beyond a million cores "no limit" is as true.
_MAX_QUOTA_USEC = 10**12


class CpuFiles(Protocol):
    """Everything raises OSError as the kernel gives it."""

    directory: Directory

    def read(self, known: CpuLimit | None, fresh: bool) -> Counters:
        """``known`` is the limit, if it need not be read.

        What practically never changes is up to ten reads old, unless ``fresh``.
        """

    @property
    def sign(self) -> tuple[int, bytes]:
        """A descriptor, and what it says for as long as no CPU time is used after the last ``read``."""

    def read_limit(self) -> CpuLimit:
        """All of it from the kernel, nothing remembered."""

    def write_bandwidth(self, old: CpuLimit, new: CpuLimit) -> None:
        """Write quota and period, but only the files that differ."""

    def cap_milli(self, directory: Path) -> int | None:
        """The limit of another cgroup of this hierarchy, in millicores rounded down; None is no limit."""

    def write_burst(self, burst_usec: int) -> None:
        """Does nothing on kernels before 5.14, which have no burst."""


# cpu.stat             cpuacct.usage (ns)   cpu.cfs_quota_us     cpu.cfs_period_us
# nr_periods 20        710799883149         20000 (-1: none)     100000
# nr_throttled 19
# throttled_time 1586000000   (ns, summed over the CPUs)
class CpuFilesV1:
    def __init__(self, directory: Directory, accounting: Directory) -> None:
        self.directory = directory
        self._stat = directory.keep("cpu.stat")
        self._quota = directory.keep("cpu.cfs_quota_us")
        self._period = directory.keep("cpu.cfs_period_us")
        self._burst = directory.keep_optional("cpu.cfs_burst_us")
        self._usage = accounting.keep("cpuacct.usage")
        self._rare = (0, 0)
        self._reads = 0
        self._used = b""

    def read(self, known: CpuLimit | None, fresh: bool) -> Counters:
        limit = known or self._limit(fresh)
        self._used = read(self._usage, NUMBER)
        stat = read_fields(self._stat)
        return Counters(
            time.monotonic_ns() // 1000,
            number(self._used) // 1000,
            number(stat[b"nr_periods"]),
            number(stat[b"nr_throttled"]),
            number(stat[b"throttled_time"]) // 1000,
            limit,
        )

    @property
    def sign(self) -> tuple[int, bytes]:
        return self._usage, self._used

    def read_limit(self) -> CpuLimit:
        return self._limit(fresh=True)

    def write_bandwidth(self, old: CpuLimit, new: CpuLimit) -> None:
        writes = []
        if new.quota_usec != old.quota_usec:
            writes.append(("cpu.cfs_quota_us", -1 if new.quota_usec is None else new.quota_usec))
        # Two files: between the two writes the limit must not be above both old and new.
        if new.period_usec > old.period_usec:
            writes.insert(0, ("cpu.cfs_period_us", new.period_usec))
        elif new.period_usec < old.period_usec:
            writes.append(("cpu.cfs_period_us", new.period_usec))
        for name, value in writes:
            self.directory.write(name, str(value))

    def write_burst(self, burst_usec: int) -> None:
        if self._burst is not None:
            self.directory.write("cpu.cfs_burst_us", str(burst_usec))

    def cap_milli(self, directory: Path) -> int | None:
        quota = _quota((directory / "cpu.cfs_quota_us").read_bytes())
        period = _period(number((directory / "cpu.cfs_period_us").read_bytes()))
        return None if quota is None else quota * 1000 // period

    def _limit(self, fresh: bool) -> CpuLimit:
        if fresh or self._reads % _REFRESH_READS == 0:
            self._rare = (_period(read_number(self._period)), read_number(self._burst))
        self._reads += 1
        period, burst = self._rare
        return _limit(_quota(read(self._quota)), period, burst)


# cpu.stat                     cpu.max
# usage_usec 3520000           20000 100000   ("max 100000": no limit)
# user_usec 3210000
# nr_periods 20
# nr_throttled 19
# throttled_usec 1586000   (summed over the CPUs)
class CpuFilesV2:
    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._stat = directory.keep("cpu.stat")
        self._max = directory.keep("cpu.max")
        self._burst = directory.keep_optional("cpu.max.burst")
        self._rare = 0
        self._reads = 0
        self._text = b""

    def read(self, known: CpuLimit | None, fresh: bool) -> Counters:
        # The limit first: should the cpu controller be switched off for this cgroup, cpu.max
        # says "gone", while cpu.stat goes on without the fields that are wanted here.
        limit = known or self._limit(fresh)
        self._text = read(self._stat)
        stat = parse_fields(self._text)
        if known and b"nr_periods" not in stat:
            self.read_limit()
        return Counters(
            time.monotonic_ns() // 1000,
            number(stat[b"usage_usec"]),
            number(stat[b"nr_periods"]),
            number(stat[b"nr_throttled"]),
            number(stat[b"throttled_usec"]),
            limit,
        )

    @property
    def sign(self) -> tuple[int, bytes]:
        return self._stat, self._text

    def read_limit(self) -> CpuLimit:
        return self._limit(fresh=True)

    def write_bandwidth(self, old: CpuLimit, new: CpuLimit) -> None:
        if (new.quota_usec, new.period_usec) != (old.quota_usec, old.period_usec):
            quota = "max" if new.quota_usec is None else new.quota_usec
            self.directory.write("cpu.max", f"{quota} {new.period_usec}")

    def write_burst(self, burst_usec: int) -> None:
        if self._burst is not None:
            self.directory.write("cpu.max.burst", str(burst_usec))

    def cap_milli(self, directory: Path) -> int | None:
        quota, period = (directory / "cpu.max").read_bytes().split()
        allowed, per = _quota(quota), _period(number(period))
        return None if allowed is None else allowed * 1000 // per

    def _limit(self, fresh: bool) -> CpuLimit:
        if fresh or self._reads % _REFRESH_READS == 0:
            self._rare = read_number(self._burst)
        self._reads += 1
        quota, period = read(self._max).split()
        return _limit(_quota(quota), _period(number(period)), self._rare)


def _limit(quota: int | None, period: int, burst: int) -> CpuLimit:
    return CpuLimit(quota, period, min(burst, _MAX_QUOTA_USEC))


def _quota(text: bytes) -> int | None:
    """None is no limit, in the words of either version."""
    if text.strip() in (b"max", b"-1"):
        return None
    quota = number(text)
    return None if quota > _MAX_QUOTA_USEC else quota


def _period(usec: int) -> int:
    """Raises ValueError for one that the kernel does not take (K1)."""
    if not MIN_PERIOD_USEC <= usec <= MAX_PERIOD_USEC:
        raise ValueError(f"a period of {usec} us")
    return usec
