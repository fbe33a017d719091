"""What the kernel's files say: of one cgroup, and of where cgroups are."""

import os
from pathlib import Path

from escra_agent.cgroupfs import Cgroup, describe
from escra_agent.counters import Counters, MemoryReading
from escra_agent.errors import CgroupDenied, CgroupGone, CgroupUnusable
from escra_agent.hierarchy import Hierarchy, NoCgroups, parse_proc_cgroup
from escra_common.messages import Ack, MemoryAck, MemoryLevel, Sample
from tests.fuzz.expect import readable, sendable
from tests.fuzz.limits import Run

# Between the files of one input; none of them contains it.
SEPARATOR = b"\x1e"
_DECLARED = (CgroupGone, CgroupDenied, CgroupUnusable)

# In the order of the input's parts; ../ is the cgroup above.
CPU_V1 = ("cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpuacct.usage")
CPU_V1_ABOVE = ("../cpu.cfs_quota_us", "../cpu.cfs_period_us")
CPU_V2 = ("cpu.stat", "cpu.max", "cpu.max.burst", "../cpu.max")
MEMORY_V1 = (
    "memory.usage_in_bytes",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.oom_control",
    "memory.failcnt",
    "memory.stat",
    "../memory.limit_in_bytes",
    "../memory.failcnt",
)
MEMORY_V2 = (
    "memory.current",
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "memory.events",
    "memory.events.local",
    "memory.stat",
    "../memory.max",
    "../memory.events.local",
)
# A CPU side that is in order, beside the memory files in question.
_PLAIN_CPU = {
    "cpu.stat": b"usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
    "cpu.max": b"max 100000\n",
    "../cpu.max": b"max 100000\n",
}


def cpu(folder: Path) -> Run:
    """The first byte says which version; then the files, separated."""
    places = {1: _Place(folder / "v1", (*CPU_V1, *CPU_V1_ABOVE)), 2: _Place(folder / "v2", CPU_V2)}

    def run(data: bytes) -> None:
        place = places[2 if data[:1] == b"2" else 1]
        place.fill(data[1:])
        try:
            cgroup = place.open(memory=False)
        except _DECLARED as error:
            readable(error)
            return
        try:
            _check_counters(cgroup.read())
            _check_counters(cgroup.read(fresh=True))
            describe(cgroup.read_limit())
            cap = cgroup.cap_milli()
            assert cap is None or 0 <= cap <= 10**12
        except _DECLARED as error:
            readable(error)
        finally:
            cgroup.close()

    return run


def memory(folder: Path) -> Run:
    places = {1: _Place(folder / "v1", MEMORY_V1), 2: _Place(folder / "v2", MEMORY_V2)}
    for place in places.values():
        for name, text in _PLAIN_CPU.items():
            (place.folder / name).write_bytes(text)

    def run(data: bytes) -> None:
        place = places[2 if data[:1] == b"2" else 1]
        place.fill(data[1:])
        try:
            cgroup = place.open(memory=True)
        except _DECLARED as error:
            readable(error)
            return
        try:
            group = cgroup.memory_group
            assert group is not None
            group.pulse()
            reading = group.read()
            _check_reading(reading, group.cache_bytes())
            sendable(MemoryAck(1, 0, group.read_limit(), group.needed_bytes()))
            cap = group.cap_bytes()
            assert cap is None or 0 <= cap <= 1 << 50
            group.cause([0] * 9, group.failures())
        except _DECLARED as error:
            readable(error)
        finally:
            cgroup.close()

    return run


class _Place:
    """A folder that looks like a cgroup below another one."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder = folder / "above" / "own"
        self.folder.mkdir(parents=True)
        self._files = [os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in names]

    def fill(self, data: bytes) -> None:
        """What there is not enough of is empty."""
        parts = data.split(SEPARATOR)
        for number, fd in enumerate(self._files):
            text = parts[number] if number < len(parts) else b""
            os.ftruncate(fd, len(text))
            os.pwrite(fd, text, 0)

    def open(self, *, memory: bool) -> Cgroup:
        own = str(self.folder)
        held = {"cpu": own, "cpuacct": own, "cpuset": None, "memory": own if memory else None}
        return Cgroup("/above/own", {"": "/above/own"}, held)


def _check_counters(counters: Counters) -> None:
    c = counters
    sendable(Sample(1, c.time_usec, c.usage_usec, c.nr_periods, c.nr_throttled, c.throttled_usec, 0, 0))
    sendable(Ack(1, 0, c.limit))


def _check_reading(reading: MemoryReading, cache_bytes: int) -> None:
    r = reading
    events = (r.oom_events, r.oom_kills, r.used_bytes, cache_bytes, r.high_events, r.max_events)
    sendable(MemoryLevel(1, r.used_bytes, r.limit_bytes, *events))
    sendable(MemoryAck(1, 0, r.limit))


def places(folder: Path) -> Run:
    """Mount tables, and /proc/PID/cgroup; paths from there lead nowhere but below the mount points."""
    (folder / "tree").mkdir()
    (folder / "tree" / "file").touch()
    tree = Hierarchy("v2", {}, str(folder / "tree"))

    def run(data: bytes) -> None:
        text = os.fsdecode(data[1:])
        try:
            if data[:1] == b"m":
                found = Hierarchy.detect(text)
                assert found.mounts or found.unified
            else:
                paths = parse_proc_cgroup(text)
                tree.open_paths(paths).close()
        except (NoCgroups, *_DECLARED) as error:
            readable(error)

    return run
