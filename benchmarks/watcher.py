"""Reads from outside what the kernel holds: do the limits of an application ever sum to more than Ω?

Nothing of Escra is asked.  Every 10 ms the limits of all its cgroups are read through kept descriptors.
Reading several files is not atomic: limits that move from one to another between two reads would be seen
twice.  So a scan counts only when it agrees with the scan before it: what both saw was in force between them.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from escra_agent.hierarchy import Hierarchy

STEP_S = 0.01
WINDOW_S = 1.0
GAP_S = 0.025
# What a group may keep of one period, on each processor that it runs on, and use in a later one (K2).
KEPT_S = 0.001
# A limit that changes between every two of so many scans is beyond reading.
SCANS_AT_MOST = 20
USE_TOLERANCE = 1.02
KEPT_EXAMPLES = 3
KEPT_MOVES = 2000


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

    def used_s(self) -> float:
        if self._v2:
            return self._field(b"usage_usec") / 1e6
        return int(os.pread(self._usage, 64, 0)) / 1e9

    def throttled_s(self) -> float:
        return self._field(b"throttled_usec") / 1e6 if self._v2 else self._field(b"throttled_time") / 1e9

    def close(self) -> None:
        for fd in {*self._cpu, self._memory, self._stat, self._usage}:
            os.close(fd)

    def _field(self, name: bytes) -> int:
        words = os.pread(self._stat, 4096, 0).split()
        return int(words[words.index(name) + 1])

    def _where(self, controller: str, name: str) -> Path:
        return Path(self._mounts.get(controller) or self._unified, self._path.strip("/"), name)

    def _open(self, controller: str, name: str) -> int:
        return os.open(self._where(controller, name), os.O_RDONLY)


@dataclass(slots=True)
class Lateness:
    """Time in which a cgroup neither ran nor was throttled, from one end of throttling to the next.

    Its load rested, or others delayed it.  Either way it may have begun its quota late in a period, and a
    window of 1 s from there holds the rest of it and ten more (K1); never more than one quota of it.
    """

    at: float
    used_s: float
    throttled_s: float
    late_s: deque[tuple[float, float]] = field(default_factory=deque)

    def look(self, now: float, used_s: float, throttled_s: float) -> None:
        if throttled_s > self.throttled_s:
            late = (now - self.at) - (used_s - self.used_s) - (throttled_s - self.throttled_s)
            self.late_s.append((now, late))
            self.at, self.used_s, self.throttled_s = now, used_s, throttled_s
        while self.late_s and self.late_s[0][0] < now - WINDOW_S - 0.2:
            self.late_s.popleft()

    def most(self, quota_s: float) -> float:
        return max(0.0, min(quota_s, max((late for _, late in self.late_s), default=0.0)))


@dataclass(slots=True)
class Seen:
    """What one application showed.  Ratios are those of the worst window of 1 s to what Ω allows in it:
    as measured, and less what began late (see Lateness) and what the kernel lets a group keep (K2), on the
    one processor where each group's load runs.
    """

    checks: int = 0
    violations: int = 0
    torn: int = 0
    moves: int = 0
    longest_gap_s: float = 0.0
    windows: int = 0
    use_ratio: float = 0.0
    use_ratio_explained: float = 0.0
    examples: list[str] = field(default_factory=list)


class AppWatch:
    """One application's cgroups, by name; ``step`` is called again and again by one thread."""

    def __init__(
        self, hierarchy: Hierarchy, paths: dict[str, str], omega_cores: float, omega_bytes: int
    ) -> None:
        self.seen = Seen()
        self._names = list(paths)
        self._files = [KernelFiles(hierarchy, path) for path in paths.values()]
        self.omega = Limits(omega_cores, omega_bytes)
        self._raw = self._scan()
        self.limits = self._parsed(self._raw)
        # The last times, oldest first.
        self.moves_at: dict[str, deque[float]] = {name: deque(maxlen=KEPT_MOVES) for name in paths}
        self._uses: deque[tuple[float, float]] = deque()
        now = time.monotonic()
        self._late = [Lateness(now, file.used_s(), file.throttled_s()) for file in self._files]
        self._stepped_at = self.read_at = now

    def step(self) -> None:
        now = time.monotonic()
        self.seen.longest_gap_s = max(self.seen.longest_gap_s, now - self._stepped_at)
        self._stepped_at = now
        self._check_limits()
        self._check_use()

    def take(self) -> Seen:
        """What was seen since the last call."""
        seen, self.seen = self.seen, Seen()
        return seen

    def close(self) -> None:
        for file in self._files:
            file.close()

    # ---- limits --------------------------------------------------------------------

    def _scan(self) -> list[tuple[bytes, ...]]:
        return [file.raw_limits() for file in self._files]

    def _parsed(self, raw: Sequence[tuple[bytes, ...]]) -> dict[str, Limits]:
        return {
            name: file.limits(each) for name, file, each in zip(self._names, self._files, raw, strict=True)
        }

    def _check_limits(self) -> None:
        before = self._raw
        for _ in range(SCANS_AT_MOST):
            raw = self._scan()
            if raw == before:
                break
            before = raw
        else:
            self.seen.torn += 1
            return
        self.seen.checks += 1
        self.read_at = self._stepped_at
        if raw != self._raw:
            self._moved(raw)
        cpu = sum(limits.cpu_cores for limits in self.limits.values())
        memory = sum(limits.memory_bytes for limits in self.limits.values())
        # A millionth for what the sum of fractions of periods does to numbers.
        if cpu > self.omega.cpu_cores + 1e-6 or memory > self.omega.memory_bytes:
            self.seen.violations += 1
            if len(self.seen.examples) < KEPT_EXAMPLES:
                self.seen.examples.append(f"{time.time():.3f}: {cpu:.4f} cores, {memory} B: {self.limits}")

    def _moved(self, raw: list[tuple[bytes, ...]]) -> None:
        now, old = time.monotonic(), self.limits
        self._raw, self.limits = raw, self._parsed(raw)
        for name, limits in self.limits.items():
            if limits.cpu_cores != old[name].cpu_cores:
                self.moves_at[name].append(now)
                self.seen.moves += 1

    # ---- use -----------------------------------------------------------------------

    def _check_use(self) -> None:
        now = time.monotonic()
        uses = [file.used_s() for file in self._files]
        for late, file, used_s in zip(self._late, self._files, uses, strict=True):
            late.look(now, used_s, file.throttled_s())
        self._uses.append((now, sum(uses)))
        begin = now - WINDOW_S
        while len(self._uses) > 2 and self._uses[1][0] <= begin:
            self._uses.popleft()
        (t0, u0), (t1, u1) = self._uses[0], self._uses[1] if len(self._uses) > 1 else (now, sum(uses))
        # In a gap it is not known when what was used was used: a whole quota may be in the window or not.
        if t0 > begin or t1 == t0 or t1 - t0 > GAP_S:
            return
        self.seen.windows += 1
        used = sum(uses) - (u0 + (u1 - u0) * (begin - t0) / (t1 - t0))
        self._note(used / WINDOW_S)

    def _note(self, rate: float) -> None:
        ratio = rate / self.omega.cpu_cores
        self.seen.use_ratio = max(self.seen.use_ratio, ratio)
        explained = ratio
        if ratio > USE_TOLERANCE:
            # One quota of the usual period of 100 ms, as the fraction of a second that it is.
            late_s = sum(
                KEPT_S + late.most(self.limits[name].cpu_cores * 0.1)
                for name, late in zip(self._names, self._late, strict=True)
            )
            explained = (rate - late_s / WINDOW_S) / self.omega.cpu_cores
        self.seen.use_ratio_explained = max(self.seen.use_ratio_explained, explained)


class Watcher:
    """Watches applications in a thread of its own while in its block."""

    def __init__(self, apps: Sequence[AppWatch]) -> None:
        self._apps = apps
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        died = not self._thread.is_alive()
        self._over.set()
        self._thread.join()
        if died:
            raise RuntimeError("the watcher stopped watching; see above")

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            for app in self._apps:
                app.step()
            due = max(due + STEP_S, time.monotonic())
