"""What is seen of an application from outside while its load runs: limits, use, throttling, kills.

``benchmarks.watcher`` adds up limits and use and compares them with Ω; this samples every 100 ms what the
tables and pictures are made of.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compare.applications import Application
from benchmarks.kernel_memory import NO_LIMIT, KernelMemory
from benchmarks.kernelfiles import KernelFiles
from benchmarks.watcher import USE_TOLERANCE, AppWatch, Seen, Watcher
from tests.kernel_cgroups import FoundCgroup

STEP_S = 0.1


@dataclass(slots=True)
class Series:
    """Of one container, a value every 100 ms; limits are infinite where there is none."""

    limit_cores: list[float] = field(default_factory=list)
    used_cores: list[float] = field(default_factory=list)
    limit_bytes: list[float] = field(default_factory=list)
    used_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Observed:
    times_s: list[float]
    series: dict[str, Series]
    throttled_share: float
    oom_kills: int
    watched: Seen

    @property
    def violations(self) -> int:
        """Scans in which the limits summed to more than Ω, and one more if use did in a window of 1 s."""
        return self.watched.violations + (self.watched.use_ratio_explained > USE_TOLERANCE)


class Container:
    def __init__(self, group: FoundCgroup) -> None:
        self.files = KernelFiles(group.hierarchy, group.path)
        self.memory = KernelMemory(group.hierarchy, group.path)
        self._stat = group.cpu / "cpu.stat"
        self.series = Series()
        self._first = self._periods()
        self._used_s = self.files.used_s()

    def sample(self, elapsed_s: float) -> None:
        limits, used_s = self.files.limits(self.files.raw_limits()), self.files.used_s()
        self.series.limit_cores.append(limits.cpu_cores)
        self.series.used_cores.append((used_s - self._used_s) / elapsed_s)
        self.series.limit_bytes.append(
            limits.memory_bytes if limits.memory_bytes < NO_LIMIT else float("inf")
        )
        self.series.used_bytes.append(self.memory.used())
        self._used_s = used_s

    def grown(self) -> tuple[int, int]:
        """Periods and throttled periods since the beginning."""
        (periods, throttled), first = self._periods(), self._first
        return periods - first[0], throttled - first[1]

    def _periods(self) -> tuple[int, int]:
        stat = dict(line.split() for line in self._stat.read_text().splitlines())
        return int(stat["nr_periods"]), int(stat["nr_throttled"])


class Observer:
    """Observes in its block, in threads of its own; ``observed`` is what it saw, after the block."""

    def __init__(self, application: Application, omega: tuple[float, int] | None, *, around: bool) -> None:
        """``around``: the limit is around the whole application, and its containers have none."""
        self._groups = {"all": application.parent} if around else dict(application.containers)
        self._killing = [KernelMemory(g.hierarchy, g.path) for g in application.containers.values()]
        self._hierarchy = application.parent.hierarchy
        self._omega = omega or (float("inf"), 1 << 62)
        self._over = threading.Event()
        self._times: list[float] = []

    def __enter__(self) -> "Observer":
        self._killed = self._kills()
        paths = {name: group.path for name, group in self._groups.items()}
        self._watch = AppWatch(self._hierarchy, paths, *self._omega)
        self._containers = {name: Container(group) for name, group in self._groups.items()}
        self._watcher = Watcher([self._watch])
        self._watcher.__enter__()
        self._sampler = threading.Thread(target=self._sample, name="sampler")
        self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._sampler.join()
        self._watcher.__exit__()
        grown = [container.grown() for container in self._containers.values()]
        periods, throttled = (sum(column) for column in zip(*grown, strict=True))
        self.observed = Observed(
            self._times,
            {name: container.series for name, container in self._containers.items()},
            throttled / periods if periods else 0.0,
            self._kills() - self._killed,
            self._watch.take(),
        )
        self._watch.close()
        for container in self._containers.values():
            container.files.close()

    def _kills(self) -> int:
        return sum(memory.oom_kills() for memory in self._killing)

    def _sample(self) -> None:
        start = before = time.monotonic()
        due = start + STEP_S
        while not self._over.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            for container in self._containers.values():
                container.sample(now - before)
            self._times.append(now - start)
            before, due = now, max(due + STEP_S, now)


def processes_cpu_s(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / 100
    return total
