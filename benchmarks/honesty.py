"""Does a container at its ceiling stay there while the loop runs?  (Promise 5.)

Three containers share Ω = 1.2 cores on real cgroups.  ``hog`` always wants a core and has a ceiling of
0.5, above its fair share: two bursty neighbours take from it and leave to it, so its limit moves and every
move refills its quota (K3).  Use is read every 2 ms; the worst window of 1 s counts, wherever it begins.

``ratio_on_time``: the same less what others' work explains.  On a busy machine a burst begins late, and the
window from there holds more than ten quotas, with or without us (lateness.py); ``late_ms`` is the most.
``kernel_alone_ratio`` is the same load under a fixed limit that nobody writes, just after it.

``careless_rewriting_ratio``: in the same run, the same load under a fixed limit that is written again every
70 ms, as a naive controller would.

``resting``: the same with a hog that rests now and then, beside the same load under a fixed limit that nobody
writes.  One who begins just before a period ends uses that period's quota and ten more in the next
second: the kernel itself allows 11 quotas in such a window, with or without us.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lateness import Beginnings, late_usec
from benchmarks.numbers import worst_rate
from benchmarks.pair import running_pair
from escra_agent.cgroupfs import Cgroup
from escra_agent.counters import Counters
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from tests.kernel_cgroups import KernelCgroup, controllers_enabled, throwaway

LIMIT_CORES = 0.5
OMEGA_CORES = 1.2
WINDOW_S = 1.0
STEP_S = 0.002
REST_S = 1.0
HOG_PROCESSOR = 0
LOAD = str(Path(__file__).with_name("load.py"))

Points = list[tuple[float, float]]


class Watched(NamedTuple):
    """What one run showed: (time s, CPU s) pairs, and how late the hog was at each of its own."""

    hog: Points
    everybody: Points
    late_s: list[float]
    writes: int


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    seconds = 12.0 if quick else 60.0
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy), _beside_the_hog():
        say(f"Escra, always at the ceiling: {seconds:.0f} s")
        ceiling = _with_escra(hierarchy, seconds, pause_s=0.0)
        say(f"the kernel alone, always at the ceiling: {seconds:.0f} s")
        unwritten = _fixed(hierarchy, seconds, pause_s=0.0, careless=False)
        say(f"Escra, with rests: {seconds:.0f} s")
        resting = _with_escra(hierarchy, seconds, pause_s=REST_S)
        say(f"the kernel alone, with rests: {seconds:.0f} s")
        alone = _fixed(hierarchy, seconds, pause_s=REST_S, careless=False)
        say(f"careless rewriting: {seconds / 4:.0f} s")
        careless = _fixed(hierarchy, seconds / 4, pause_s=0.0, careless=True)
    hog = ceiling.hog
    if not hog or hog[-1][1] - hog[0][1] < LIMIT_CORES * seconds / 2:
        raise SystemExit("the load did not run: nothing was measured")
    worst, app = worst_rate(hog, WINDOW_S), worst_rate(ceiling.everybody, WINDOW_S)
    return {
        "limit_cores": LIMIT_CORES,
        "worst_window_used_cores": round(worst, 4),
        "ratio": round(worst / LIMIT_CORES, 4),
        "ratio_on_time": round(worst_rate(hog, WINDOW_S, ceiling.late_s) / LIMIT_CORES, 4),
        "kernel_alone_ratio": round(worst_rate(unwritten.hog, WINDOW_S) / LIMIT_CORES, 4),
        "late_ms": round(max(ceiling.late_s) * 1000, 1),
        "writes": ceiling.writes,
        "seconds": seconds,
        "omega_cores": OMEGA_CORES,
        "worst_window_app_used_cores": round(app, 4),
        "app_ratio": round(app / OMEGA_CORES, 4),
        "careless_rewriting_ratio": round(
            worst_rate(careless.hog, WINDOW_S, careless.late_s) / LIMIT_CORES, 4
        ),
        "resting": {
            "ratio": round(worst_rate(resting.hog, WINDOW_S) / LIMIT_CORES, 4),
            "kernel_alone_ratio": round(worst_rate(alone.hog, WINDOW_S) / LIMIT_CORES, 4),
            "writes": resting.writes,
        },
    }


def _fixed(hierarchy: Hierarchy, seconds: float, pause_s: float, *, careless: bool) -> Watched:
    """A limit without Escra; ``careless`` writes it again every 70 ms."""
    with throwaway(hierarchy) as group:
        _full_load(group, pause_s)
        cgroup = group.open()
        limit = CpuLimit(int(LIMIT_CORES * 100_000), 100_000)
        cgroup.write_limit(limit)
        time.sleep(1.0)

        def each_step(step: int) -> None:
            if careless and step % 35 == 0:
                _rewrite(group, hierarchy, limit)

        hog, everybody, late_s = _watch([cgroup], seconds, each_step)
        cgroup.close()
        return Watched(hog, everybody, late_s, writes=0)


def _rewrite(group: KernelCgroup, hierarchy: Hierarchy, limit: CpuLimit) -> None:
    name = "cpu.max" if hierarchy.version == "v2" else "cpu.cfs_quota_us"
    (group.cpu / name).write_text(str(limit.quota_usec))


def _with_escra(hierarchy: Hierarchy, seconds: float, pause_s: float) -> Watched:
    with ExitStack() as stack:
        groups = [stack.enter_context(throwaway(hierarchy)) for _ in range(3)]
        entries = [
            f'[[cgroup]]\npath = "{group.path}"\napp = "bench"\nname = "{name}"\n' + extra
            for group, name, extra in zip(
                groups, ("hog", "left", "right"), (f"cpu_max = {LIMIT_CORES}\n", "", ""), strict=True
            )
        ]
        pair = stack.enter_context(
            running_pair(
                f'grace_s = 0\n[apps.bench]\ncpu = {OMEGA_CORES}\nmemory = "1GiB"\n',
                "[docker]\nenabled = false\n" + "".join(entries),
                nice=-10,  # as its unit sets it
            )
        )
        pair.wait_managed("hog", "left", "right")
        _full_load(groups[0], pause_s)
        for seed, group in enumerate(groups[1:]):
            group.start(*_load("0.7", "1.0", "0.1", str(seed)))
        cgroups = [group.open() for group in groups]
        for cgroup in cgroups:
            stack.callback(cgroup.close)
        time.sleep(2.0)  # until the hog has its limit
        hog, everybody, late_s = _watch(cgroups, seconds)
        return Watched(hog, everybody, late_s, pair.ask("agents")[0]["writes"])


@contextmanager
def _beside_the_hog() -> Iterator[None]:
    """Whoever watches, decides and writes leaves the hog its processor, where there is another one."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ours - {HOG_PROCESSOR} or ours)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _full_load(group: KernelCgroup, pause_s: float) -> None:
    """A process that wants a core, with a rest now and then if ``pause_s``."""
    group.start("taskset", "-c", str(HOG_PROCESSOR), *_load("4.0", str(pause_s), "0.0", "1"))


def _load(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, LOAD, *arguments)


def _watch(
    cgroups: list[Cgroup], seconds: float, each_step: Callable[[int], None] = lambda step: None
) -> tuple[Points, Points, list[float]]:
    """(time s, CPU s) of the first, and of all together; how late the first was, in s."""
    first: list[Counters] = []
    together: Points = []
    start = time.monotonic()
    step = 0
    while time.monotonic() < start + seconds:
        readings = [cgroup.read() for cgroup in cgroups]
        first.append(readings[0])
        together.append((readings[-1].time_usec / 1e6, sum(r.usage_usec for r in readings) / 1e6))
        step += 1
        each_step(step)
        time.sleep(max(0.0, start + step * STEP_S - time.monotonic()))
    beginnings = Beginnings(first)
    late_s = [late_usec(first, index, beginnings) / 1e6 for index in range(len(first))]
    return [(r.time_usec / 1e6, r.usage_usec / 1e6) for r in first], together, late_s
