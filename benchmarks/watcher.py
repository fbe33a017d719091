"""Reads from outside what the kernel holds: do the limits of an application ever sum to more than Ω?

Nothing of Escra is asked.  Every 10 ms the limits of all its cgroups are read through kept descriptors.
Reading several files is not atomic: limits that move from one to another between two reads would be seen
twice.  So a scan counts only when it agrees with the scan before it: what both saw was in force between them.
"""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.kernelfiles import KernelFiles, Limits
from benchmarks.lateness import Beginnings, late_usec
from benchmarks.stillness import Stillness
from escra_agent.counters import Counters
from escra_agent.hierarchy import Hierarchy

STEP_S = 0.01
WINDOW_S = 1.0
# A window whose end was not read within so long is not judged.
GAP_S = 0.025
# Readings that are kept: a window, a period before it, and one in which it begins.
KEPT_READINGS_S = 1.3
# What a group may keep of one period, on each processor that it runs on, and use in a later one (K2).
KEPT_USEC = 1000
# What a processor did is booked at its next tick, at 100 to 1000 Hz.
TICK_USEC = 10_000
# A limit that changes between every two of so many scans is beyond reading.
SCANS_AT_MOST = 20
USE_TOLERANCE = 1.02
KEPT_EXAMPLES = 3
KEPT_MOVES = 2000


@dataclass(slots=True)
class Seen:
    """What one application showed.  Ratios are those of the worst window of 1 s to what Ω allows in it:
    as measured, and less what began late (lateness.py) and what the kernel lets a group keep (K2), on the
    one processor where each group's load runs.  A window begins and ends at readings, so nothing is counted
    of which it is not known whether it belongs there.  ``worst`` is what groups did in that window.

    ``..._running`` are those of the windows in which the machine ran all the time (stillness.py).
    """

    checks: int = 0
    violations: int = 0
    torn: int = 0
    moves: int = 0
    longest_gap_s: float = 0.0
    windows: int = 0
    use_ratio: float = 0.0
    use_ratio_explained: float = 0.0
    worst: str = ""
    windows_running: int = 0
    use_ratio_running: float = 0.0
    worst_running: str = ""
    examples: list[str] = field(default_factory=list)


class AppWatch:
    """One application's cgroups, by name; ``step`` is called again and again by one thread."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        paths: dict[str, str],
        omega_cores: float,
        omega_bytes: int,
        stillness: Stillness | None = None,
    ) -> None:
        """Without ``stillness`` the machine is taken to run all the time."""
        self.seen = Seen()
        self._stillness = stillness
        self._names = list(paths)
        self._files = [KernelFiles(hierarchy, path) for path in paths.values()]
        self.omega = Limits(omega_cores, omega_bytes)
        self._raw = self._scan()
        self.limits = self._parsed(self._raw)
        # The last times, oldest first.
        self.moves_at: dict[str, deque[float]] = {name: deque(maxlen=KEPT_MOVES) for name in paths}
        # One list for each group, of the same times, oldest first; and the first of which the window is not
        # judged.
        self._readings: list[list[Counters]] = [[] for _ in paths]
        self._begin = 0
        self._anew = False
        self._beginnings = [Beginnings() for _ in paths]
        self._stepped_at = self.read_at = time.monotonic()

    def step(self) -> None:
        now = time.monotonic()
        if self._anew:
            self._anew, self._begin, self.seen = False, 0, Seen()
            for readings in self._readings:
                readings.clear()
        self.seen.longest_gap_s = max(self.seen.longest_gap_s, now - self._stepped_at)
        self._stepped_at = now
        self._check_limits()
        self._check_use()

    def take(self) -> Seen:
        """What was seen since the last call."""
        seen, self.seen = self.seen, Seen()
        return seen

    def start_anew(self) -> None:
        """From the next step on: no window begins before it, and nothing that was seen counts."""
        self._anew = True

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
        for name, file, readings, beginnings in zip(
            self._names, self._files, self._readings, self._beginnings, strict=True
        ):
            readings.append(file.counters(self.limits[name]))
            if len(readings) > 1:
                beginnings.look(readings[-2], readings[-1])
        times = self._readings[0]
        while times[-1].time_usec - times[self._begin].time_usec > WINDOW_S * 1e6:
            self._judge(self._begin)
            self._begin += 1
        if times[-1].time_usec - times[0].time_usec > 2 * KEPT_READINGS_S * 1e6:
            old = bisect_left(times, times[-1].time_usec - KEPT_READINGS_S * 1e6, key=lambda r: r.time_usec)
            for readings in self._readings:
                del readings[:old]
            self._begin -= old

    def _judge(self, begin: int) -> None:
        """Of the window from that reading to the last but one."""
        times = self._readings[0]
        length_s = (times[-2].time_usec - times[begin].time_usec) / 1e6
        if length_s < WINDOW_S - GAP_S:
            return
        seen, still_usec = self.seen, self._still_usec(begin)
        seen.windows += 1
        seen.windows_running += not still_usec
        used = sum(readings[-2].usage_usec - readings[begin].usage_usec for readings in self._readings)
        ratio = used / 1e6 / WINDOW_S / self.omega.cpu_cores
        if ratio > max(USE_TOLERANCE, seen.use_ratio):
            seen.worst = self._told(begin, still_usec)
        seen.use_ratio = max(seen.use_ratio, ratio)
        # Explaining costs time: only what could be the worst is.
        if ratio > max(USE_TOLERANCE, seen.use_ratio_explained if still_usec else seen.use_ratio_running):
            used -= sum(
                KEPT_USEC + late_usec(readings, begin, beginnings)
                for readings, beginnings in zip(self._readings, self._beginnings, strict=True)
            )
            ratio = used / 1e6 / WINDOW_S / self.omega.cpu_cores
        seen.use_ratio_explained = max(seen.use_ratio_explained, ratio)
        if still_usec:
            return
        if ratio > max(USE_TOLERANCE, seen.use_ratio_running):
            seen.worst_running = self._told(begin, still_usec)
        seen.use_ratio_running = max(seen.use_ratio_running, ratio)

    def _still_usec(self, begin: int) -> int:
        """For how long processors stood still in this window, or in the last tick before it."""
        if self._stillness is None:
            return 0
        times = self._readings[0]
        return self._stillness.usec(times[begin].time_usec - TICK_USEC, times[-2].time_usec)

    def _told(self, begin: int, still_usec: int) -> str:
        """What each group used from that reading to the last but one, and the most of it in one go.

        The kernel stops who is past a quota at the next tick: more in one go was no limit's doing.
        """
        said = []
        for name, readings in zip(self._names, self._readings, strict=True):
            window = readings[begin:-1]
            steps = [(b.usage_usec - a.usage_usec, b.time_usec - a.time_usec) for a, b in pairwise(window)]
            (most, within), first, last = max(steps), window[0], window[-1]
            said.append(
                f"{name} {(last.usage_usec - first.usage_usec) / 1000:.1f} ms in {_periods(first, last)}, "
                f"at most {most / 1000:.1f} in {within / 1000:.1f} ms"
            )
        still = f"; the processors stood still for {still_usec / 1000:.1f} ms" if still_usec else ""
        return f"{time.time():.1f}: {'; '.join(said)}{still}"


def _periods(first: Counters, last: Counters) -> str:
    throttled = last.nr_throttled - first.nr_throttled
    return f"{last.nr_periods - first.nr_periods} periods, {throttled} throttled"


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
