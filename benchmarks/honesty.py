"""Does a container at its ceiling stay there while the loop runs?  (Promise 5.)

Three containers share Ω = 1.2 cores on real cgroups.  ``hog`` wants two cores and has a ceiling of 0.5: it
is full most of the time, but rests now and then, so that its limit is taken and given back
and every give-back refills its quota (K3).  Two bursty neighbours keep the pool moving.  Use
is read every 2 ms; the worst window of 1 s counts, wherever it begins.

In the same run the same load under the same fixed limit, rewritten every 100 ms by hand, shows what
careless writing does.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.numbers import worst_rate
from benchmarks.pair import running_pair
from escra_agent.cgroupfs import Cgroup
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from tests.kernel_cgroups import KernelCgroup, controllers_enabled, throwaway

LIMIT_CORES = 0.5
OMEGA_CORES = 1.2
WINDOW_S = 1.0
STEP_S = 0.002
LOAD = str(Path(__file__).with_name("load.py"))

Points = list[tuple[float, float]]


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    seconds = 15.0 if quick else 60.0
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy):
        say(f"careless rewriting for {seconds / 4:.0f} s")
        careless = _careless(hierarchy, seconds / 4)
        say(f"Escra for {seconds:.0f} s")
        hog, everybody, writes = _with_escra(hierarchy, seconds)
    worst = worst_rate(hog, WINDOW_S)
    app = worst_rate(everybody, WINDOW_S)
    return {
        "limit_cores": LIMIT_CORES,
        "worst_window_used_cores": round(worst, 4),
        "ratio": round(worst / LIMIT_CORES, 4),
        "omega_cores": OMEGA_CORES,
        "worst_window_app_used_cores": round(app, 4),
        "app_ratio": round(app / OMEGA_CORES, 4),
        "writes": writes,
        "seconds": seconds,
        "careless_rewriting_ratio": round(careless / LIMIT_CORES, 4),
    }


def _careless(hierarchy: Hierarchy, seconds: float) -> float:
    """The same limit written again every 100 ms, as a naive controller would."""
    with throwaway(hierarchy) as group:
        _full_load(group)
        cgroup = group.open()
        limit = CpuLimit(int(LIMIT_CORES * 100_000), 100_000)
        (group.cpu / ("cpu.max" if hierarchy.version == "v2" else "cpu.cfs_quota_us")).write_text("50000")
        points: Points = []
        start = time.monotonic()
        step = 0
        while (now := time.monotonic()) < start + seconds:
            points.append((now, cgroup.read().usage_usec / 1e6))
            step += 1
            if step % 50 == 0:
                _rewrite(group, hierarchy, limit)
            time.sleep(max(0.0, start + step * STEP_S - time.monotonic()))
        cgroup.close()
        return worst_rate(points, WINDOW_S)


def _rewrite(group: KernelCgroup, hierarchy: Hierarchy, limit: CpuLimit) -> None:
    name = "cpu.max" if hierarchy.version == "v2" else "cpu.cfs_quota_us"
    (group.cpu / name).write_text(str(limit.quota_usec))


def _with_escra(hierarchy: Hierarchy, seconds: float) -> tuple[Points, Points, int]:
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
            )
        )
        pair.wait_managed("hog", "left", "right")
        _full_load(groups[0], pause_s=1.0)
        for seed, group in enumerate(groups[1:]):
            group.start(sys.executable, LOAD, "0.7", "1.0", "0.1", str(seed))
        cgroups = [group.open() for group in groups]
        for cgroup in cgroups:
            stack.callback(cgroup.close)
        hog, everybody = _watch(cgroups, seconds)
        return hog, everybody, pair.ask("agents")[0]["writes"]


def _full_load(group: KernelCgroup, pause_s: float = 0.0) -> None:
    """Two processes that want a core each, with rests that are short and rare if ``pause_s``."""
    for seed in (1, 2):
        group.start(sys.executable, LOAD, "4.0", str(pause_s), "0.0", str(seed))


def _watch(cgroups: list[Cgroup], seconds: float) -> tuple[Points, Points]:
    first: Points = []
    together: Points = []
    start = time.monotonic()
    step = 0
    while time.monotonic() < start + seconds:
        readings = [cgroup.read() for cgroup in cgroups]
        first.append((readings[0].time_usec / 1e6, readings[0].usage_usec / 1e6))
        together.append((readings[-1].time_usec / 1e6, sum(r.usage_usec for r in readings) / 1e6))
        step += 1
        time.sleep(max(0.0, start + step * STEP_S - time.monotonic()))
    return first, together
