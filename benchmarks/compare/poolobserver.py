"""What is seen of containers that come and go, from outside: limits, use, throttling, and whether Ω holds.

All is read from the cgroups that the kernel has below the engine's; nothing is asked of Escra or Docker.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compare.invocations import Function, Sample
from benchmarks.kernel_memory import KernelMemory
from benchmarks.kernelfiles import KernelFiles, Limits
from escra_agent.hierarchy import Hierarchy

# Between two looks at the limits, and of these, how many make a sample.
LOOK_S = 0.01
LOOKS = 10


class Group:
    """One container's cgroup.  Any read may raise OSError: it is gone."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self.files = KernelFiles(hierarchy, path)
        self.memory = KernelMemory(hierarchy, path)
        self.throttled_s = 0.0

    def limits(self) -> Limits:
        return self.files.limits(self.files.raw_limits())


@dataclass(slots=True)
class Seen:
    """``violations`` of ``checks`` found the limits of all containers above Ω, two scans in a row."""

    samples: list[Sample] = field(default_factory=list)
    checks: int = 0
    violations: int = 0
    throttled_s: float = 0.0


class PoolObserver:
    """Observes in its block, in a thread of its own; ``seen`` is what it saw."""

    def __init__(self, hierarchy: Hierarchy, parent: str, function: Function) -> None:
        self.seen = Seen()
        self._hierarchy = hierarchy
        self._parent = parent.strip("/")
        self._function = function
        self._directory = Path(hierarchy.mounts.get("cpu") or str(hierarchy.unified), self._parent)
        self._groups: dict[str, Group] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool observer")

    def __enter__(self) -> "PoolObserver":
        self._all = KernelFiles(self._hierarchy, self._parent)
        self._used_s = self._all.used_s()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        died = not self._thread.is_alive()
        self._over.set()
        self._thread.join()
        for name in list(self._groups):
            self._forget(name)
        self._all.close()
        if died:
            raise RuntimeError("the observer stopped observing; see above")

    def _run(self) -> None:
        start = before = due = time.monotonic()
        look = 0
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self._find()
            limits = self._check()
            look += 1
            if look % LOOKS == 0:
                now = time.monotonic()
                self._sample(now - start, now - before, limits)
                before = now
            due = max(due + LOOK_S, time.monotonic())

    def _find(self) -> None:
        there = {entry.name for entry in os.scandir(self._directory) if entry.is_dir()}
        for name in self._groups.keys() - there:
            self._forget(name)
        for name in there - self._groups.keys():
            with contextlib.suppress(OSError):
                self._groups[name] = Group(self._hierarchy, f"{self._parent}/{name}")

    def _forget(self, name: str) -> None:
        group = self._groups.pop(name)
        self.seen.throttled_s += group.throttled_s
        group.files.close()

    def _scan(self) -> Iterator[tuple[str, Limits]]:
        """Those that are still there, and already have what they were made with."""
        for name, group in self._groups.items():
            with contextlib.suppress(OSError):
                limits = group.limits()
                if max(limits) < float("inf"):
                    yield name, limits

    def _check(self) -> dict[str, Limits]:
        """A limit may move from one to another between two reads: what two scans saw was in force."""
        first, second = dict(self._scan()), dict(self._scan())
        both = {name: Limits(*map(min, first[name], second[name])) for name in first.keys() & second.keys()}
        self.seen.checks += 1
        self.seen.violations += (
            # A millionth for what the sum of fractions of periods does to numbers.
            sum(limits.cpu_cores for limits in both.values()) > self._function.omega_cores + 1e-6
            or sum(limits.memory_bytes for limits in both.values()) > self._function.omega_bytes
        )
        return both

    def _sample(self, at_s: float, elapsed_s: float, limits: dict[str, Limits]) -> None:
        """What ended meanwhile is in the use, for that of all is the parent's."""
        used_bytes = 0
        for name in limits:
            group = self._groups[name]
            with contextlib.suppress(OSError):
                used_bytes += group.memory.used()
                group.throttled_s = group.files.throttled_s()
        now_s = self._all.used_s()
        self.seen.samples.append(
            Sample(
                at_s,
                len(limits),
                sum(each.cpu_cores for each in limits.values()),
                (now_s - self._used_s) / elapsed_s,
                sum(each.memory_bytes for each in limits.values()),
                used_bytes,
            )
        )
        self._used_s = now_s
