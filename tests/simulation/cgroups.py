"""The kernel as an agent meets it: the classes that read and write cgroupfs, on simulated groups.

They stand in for escra_agent.cgroupfs.Cgroup, memorygroup.MemoryGroup, hierarchy.Hierarchy, select.epoll,
memorymarks.set_mark and the guard process.  The real ones have tests on the real kernel.
"""

import errno
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Literal

from escra_agent.cgroupfs import Counters, MemoryReading
from escra_agent.errors import CgroupGone, LimitRejected
from escra_agent.memoryfiles import Pulse
from escra_common.messages import CpuLimit, MemoryLimit
from tests.simulation.clockwork import Process
from tests.simulation.kernel import MIB, Group

EPOLLIN, EPOLLPRI = 1, 2
GUARD_S = 1.0
# The descriptors of marks are those of their groups and as many of these.
MARKS = 1 << 40


class SimulatedCgroup:
    """As escra_agent.cgroupfs.Cgroup."""

    depth = 2
    awaits_memory = False

    def __init__(self, group: Group, process: Process) -> None:
        self._group, self._process = group, process
        group.check_there()
        self.key = group.key
        self.path = f"/docker/{group.id}"
        self.paths = {"cpu": self.path, "memory": self.path}
        self.memory_group = SimulatedMemoryGroup(group)
        self._used = 0

    @property
    def writes(self) -> int:
        return self._group.cpu_writes

    @property
    def directories(self) -> list[str]:
        return [f"{self.key}"]

    @property
    def sign(self) -> tuple[int, bytes]:
        return self.key, b"%d" % self._used

    def read(self, known: CpuLimit | None = None, *, fresh: bool = False) -> Counters:
        group = self._group
        group.check_there()
        group.count()
        self._used = int(group.usage_usec)
        return Counters(
            int(self._process.time() * 1e6),
            self._used,
            group.nr_periods,
            group.nr_throttled,
            int(group.throttled_usec),
            known or group.cpu,
        )

    def read_limit(self) -> CpuLimit:
        self._group.check_there()
        return self._group.cpu

    def write_limit(self, limit: CpuLimit) -> CpuLimit:
        group = self._group
        if group.clockwork.ended:
            raise CgroupGone("the simulation is over")
        if limit != group.cpu or group.cpu_ours != limit:
            group.write_cpu(limit, ours=True)
        return group.cpu

    def still_there(self) -> bool:
        return self._group.there

    def cap_milli(self) -> int | None:
        return None

    def pinned(self) -> bool:
        return False

    def memory(self) -> MemoryReading:
        return self.memory_group.read()

    def close(self) -> None:
        self.memory_group.close()


class SimulatedMemoryGroup:
    """As escra_agent.memorygroup.MemoryGroup.  The number of its descriptor is that of the cgroup."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.path = f"/docker/{group.id}"
        self.switch = f"{group.key}"
        self.writes = 0
        self._used = 0
        self._event: int | None = None

    @property
    def directory(self) -> str:
        return f"{self._group.key}"

    @property
    def banded(self) -> bool:
        return self._group.banded

    def problem(self) -> str:
        return ""

    def still(self) -> bool:
        self._group.check_there()
        return self._group.used == self._used

    def pulse(self, *, fresh: bool = True) -> Pulse:
        group = self._group
        group.check_there()
        self._used = group.used
        return Pulse(group.used, group.stalled, group.armed, group.kills)

    def read(self) -> MemoryReading:
        group = self._group
        group.check_there()
        return MemoryReading(
            group.used,
            group.memory,
            group.high_events,
            group.max_events,
            group.kills,
            group.kills,
            group.stalled,
            group.armed,
        )

    def read_limit(self) -> MemoryLimit:
        self._group.check_there()
        return self._group.memory

    def cache_bytes(self) -> int:
        self._group.check_there()
        return self._group.cache

    def needed_bytes(self) -> int:
        self._group.check_there()
        return self._group.anon

    def cap_bytes(self) -> int | None:
        return None

    def failures(self) -> list[int]:
        return [self._group.max_events]

    def cause(self, before: list[int], after: list[int]) -> str:
        return "its own limit" if after[0] > before[0] else "the host ran out of memory"

    def notification(self) -> tuple[int, int]:
        return self._group.key, EPOLLPRI if self.banded else EPOLLIN

    def heard(self) -> None:
        self._group.check_there()

    def raise_limit(self, limit: MemoryLimit) -> MemoryLimit:
        return self._write(limit)

    def make_room(self, limit: MemoryLimit) -> None:
        if self.banded:
            self._group.drop_cache(limit)
        else:
            self._write(limit)  # as the production class does on v1

    def lower_limit(self, limit: MemoryLimit) -> MemoryLimit:
        group = self._group
        if group.banded and limit.max_bytes is not None and group.anon > limit.max_bytes:
            raise LimitRejected(f"{group.anon} bytes are in use")
        return self._write(limit)

    def _write(self, limit: MemoryLimit) -> MemoryLimit:
        group = self._group
        if group.clockwork.ended:
            raise CgroupGone("the simulation is over")
        if limit != group.memory or group.memory_ours != limit:
            group.write_memory(limit, ours=True)
            self.writes += 1
        return group.memory

    def arm(self) -> None:
        self._group.check_there()
        self._group.armed = not self.banded

    def disarm(self) -> None:
        self._group.check_there()
        if not self._group.clockwork.ended:
            self._group.disarm()

    def wake(self) -> None:
        pass

    def again(self) -> "SimulatedMemoryGroup":
        self._group.check_there()
        return SimulatedMemoryGroup(self._group)

    def close(self) -> None:
        pass


class SimulatedHierarchy:
    """As escra_agent.hierarchy.Hierarchy, for the containers of one host: group by PID (here the key)."""

    unified = None
    mounts: Mapping[str, str] = {}

    def __init__(self, groups: Mapping[int, Group], process: Process, version: Literal["v1", "v2"]) -> None:
        self._groups, self._process = groups, process
        self.version = version

    def open_pid(self, pid: int) -> SimulatedCgroup:
        group = self._groups.get(pid)
        if group is None:
            raise CgroupGone(f"process {pid} has ended")
        return SimulatedCgroup(group, self._process)

    def open_paths(self, paths: Mapping[str, str]) -> SimulatedCgroup:
        container = paths["cpu"].rpartition("/")[2]
        for group in self._groups.values():
            if group.id == container and group.there:
                return SimulatedCgroup(group, self._process)
        raise CgroupGone(f"there is no cgroup {paths['cpu']}")


def read_sign(groups: Mapping[int, Group], fd: int) -> bytes:
    """As escra_agent.directory.read, of the descriptor in ``SimulatedCgroup.sign``."""
    group = groups.get(fd)
    if group is None or not group.there:
        raise OSError(errno.ENODEV, "No such device")
    group.count()
    return b"%d" % int(group.usage_usec)


class SimulatedNotices:
    """As escra_agent.notices.WriteNotices.  A group's directory is its number."""

    trouble = ""

    def __init__(self, groups: Mapping[int, Group]) -> None:
        self._groups = groups
        self._written: set[int] = set()

    def watch(self, directory: str) -> int | None:
        group = self._groups.get(int(directory))
        if group is None:
            return None
        group.watchers.append(self._written)
        return group.key

    def unwatch(self, number: int) -> None:
        if (group := self._groups.get(number)) is not None:
            group.watchers = [found for found in group.watchers if found is not self._written]

    def written(self) -> set[int] | None:
        found = set(self._written)
        self._written.clear()
        return found

    def close(self) -> None:
        for number in self._groups:
            self.unwatch(number)


class SimulatedEpoll:
    """As select.epoll, for the notices of memory groups."""

    def __init__(self, groups: Mapping[int, Group], process: Process) -> None:
        self._groups, self._process = groups, process
        self._registered: set[int] = set()
        self._ready: dict[int, int] = {}

    def fileno(self) -> int:
        return 3

    def register(self, fd: int, event: int) -> None:
        if (group := self._groups.get(fd % MARKS)) is not None:
            if fd in group.marks:
                group.marks[fd] = group.marks[fd][0], self._heard_from(fd, event)
            else:
                group.listener = self._heard_from(fd, event)
            self._registered.add(fd)

    def unregister(self, fd: int) -> None:
        self._registered.discard(fd)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        ready, self._ready = list(self._ready.items()), {}
        return [(fd, event) for fd, event in ready if fd in self._registered]

    def close(self) -> None:
        self._registered.clear()

    def _heard_from(self, fd: int, event: int) -> Callable[[], None]:
        def notify() -> None:
            fresh = not self._ready
            self._ready[fd] = event
            reader = self._process.readers.get(self.fileno())
            if fresh and reader is not None and not self._process.dead:
                self._process.post(reader)

        return notify


def set_mark(groups: Mapping[int, Group], directory: str, at_bytes: int) -> int:
    """As escra_agent.memorymarks.set_mark."""
    group = groups.get(int(directory))
    if group is None or not group.there:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")
    fd = max(group.marks, default=group.key) + MARKS
    group.marks[fd] = at_bytes, None
    return fd


def close_mark(groups: Mapping[int, Group], fd: int) -> None:
    if (group := groups.get(fd % MARKS)) is not None:
        group.marks.pop(fd, None)


class SimulatedGuard:
    """As subprocess.Popen of escra_agent/guard.py, with the pipe to it."""

    def __init__(self, groups: Mapping[int, Group], process: Process) -> None:
        self._groups, self._process = groups, process
        self._armed: set[str] = set()
        self._heard = process.clockwork.now
        self._over = False
        self.pid = 1
        self.stdin = SimpleNamespace(fileno=lambda: self, close=self._end)
        self._watch()

    def poll(self) -> int | None:
        return 0 if self._over else None

    def wait(self, timeout: float = 0.0) -> int:
        return 0

    def kill(self) -> None:
        self._end()

    def hear(self, data: bytes) -> None:
        self._heard = self._process.clockwork.now
        for line in data.decode().splitlines():
            word, _, path = line.partition(" ")
            if word == "arm":
                self._armed.add(path)
            elif word == "disarm":
                self._armed.discard(path)

    def _watch(self) -> None:
        clockwork = self._process.clockwork
        if self._over or clockwork.ended:
            return
        if self._process.dead:
            self._end()
            return
        if clockwork.now - self._heard >= GUARD_S:
            self._disarm()
        clockwork.after(GUARD_S / 4, self._watch)

    def _end(self) -> None:
        self._over = True
        if not self._process.clockwork.ended:
            self._disarm()

    def _disarm(self) -> None:
        for path in sorted(self._armed):
            if (group := self._groups.get(int(path))) is not None and group.there:
                group.disarm()


def write_to_guard(fd: Any, data: bytes) -> int:
    """As os.write on the guard's pipe."""
    fd.hear(data)
    return len(data)


SMALLEST_MEMORY = 16 * MIB
