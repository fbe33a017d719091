"""From running out of quota to a higher one, within the period: with headroom, with alarms, with ticks alone.

Three cgroups whose work never ends but swings: bursts of a whole core, and a tenth of one in between.  Their
limits follow it down, so every burst runs out of quota.  The kernel books the time a group was throttled
when that ends, so the moment at which a group of one thread ran out is told by the kernel itself: when its
throttled time has grown, less the growth.  It was relieved when a higher quota is in force.

``ahead`` are raises that came before the quota was used up: nothing was lost, and they are not among the
times; in ``all`` they are, as zero.  ``without`` is the same load with ``alarms = false``,
``without_headroom`` with ``headroom_share = 0``: what an alarm says is then answered by the controller alone.
``far`` are both with a controller that is ``FAR_S`` away, in each direction.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.numbers import summary_ms
from benchmarks.pair import running_pair
from benchmarks.relay import Relay
from escra_agent.cgroupfs import Cgroup
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import throwaway

LOAD = str(Path(__file__).with_name("load.py"))
STEP_S = 0.0005
GROUPS = 3
FAR_S = 0.01
# Until each has shown a few swings.
WARM_S = 6.0
# Limits fall back quickly between bursts, so that there is much to measure in little time.
POLICY = "[policy]\nshrink_every_s = 0.1\nshrink_window_s = 0.3\n"
NO_HEADROOM = "headroom_share = 0\n"


def demand_to_relief(
    hierarchy: Hierarchy, events: int, most_s: float, say: Callable[[str], None]
) -> dict[str, Any]:
    def once(what: str, policy: str = "", alarms: str = "true", away_s: float = 0.0) -> dict[str, Any]:
        say(f"demand to relief, {what}")
        return _summary(*_swinging(hierarchy, events, most_s, policy, alarms, away_s))

    return {
        **once("with headroom"),
        "without_headroom": once("with alarms", NO_HEADROOM),
        "without": once("with ticks alone", alarms="false"),
        "far": {
            "delay_ms": FAR_S * 1000,
            **once("with headroom, far away", away_s=FAR_S),
            "without_headroom": once("with alarms, far away", NO_HEADROOM, away_s=FAR_S),
        },
    }


def _summary(reliefs: list[float], ahead: int) -> dict[str, Any]:
    return {**summary_ms(reliefs), "ahead": ahead, "all": summary_ms([*reliefs, *[0.0] * ahead])}


def _swinging(
    hierarchy: Hierarchy, events: int, most_s: float, policy: str, alarms: str, away_s: float
) -> tuple[list[float], int]:
    with ExitStack() as stack:
        groups = [stack.enter_context(throwaway(hierarchy)) for _ in range(GROUPS)]
        entries = [
            f'[[cgroup]]\npath = "{group.path}"\napp = "bench"\nname = "g{n}"\n'
            for n, group in enumerate(groups)
        ]
        pair = stack.enter_context(
            running_pair(
                f'grace_s = 0\n{POLICY}{policy}[apps.bench]\ncpu = 16\nmemory = "1GiB"\n',
                "",
                start=False,
                nice=-10,  # as its unit sets it
            )
        )
        if away_s:
            pair.port = stack.enter_context(Relay(pair.port, away_s)).port
        pair.write_config("agent", f"alarms = {alarms}\n[docker]\nenabled = false\n" + "".join(entries))
        pair.start()
        pair.wait_managed(*(f"g{n}" for n in range(GROUPS)))
        for seed, group in enumerate(groups):
            group.start(sys.executable, LOAD, "0.25", "1.5", "0.1", str(seed))
        cgroups = [group.open() for group in groups]
        for cgroup in cgroups:
            stack.callback(cgroup.close)
        time.sleep(WARM_S)
        return _watch(cgroups, events, most_s)


def _watch(cgroups: list[Cgroup], events: int, most_s: float) -> tuple[list[float], int]:
    """Reliefs, in seconds, and how many raises came ahead.

    A throttling that ends without a raise (the burst was over) is none.
    """
    last = [cgroup.read() for cgroup in cgroups]
    since: list[float | None] = [None] * len(cgroups)
    reliefs: list[float] = []
    ahead = 0
    end = time.monotonic() + most_s
    while len(reliefs) < events and time.monotonic() < end:
        for n, cgroup in enumerate(cgroups):
            now = cgroup.read()
            was, last[n] = last[n], now
            lost_usec = now.throttled_usec - was.throttled_usec
            if lost_usec and since[n] is None:
                since[n] = (now.time_usec - lost_usec) / 1e6
            if (now.limit.quota_usec or 0) > (was.limit.quota_usec or 0):
                began, since[n] = since[n], None
                if began is None:
                    ahead += 1
                else:
                    reliefs.append(now.time_usec / 1e6 - began)
            elif now.nr_periods > was.nr_periods and now.nr_throttled == was.nr_throttled:
                since[n] = None
        time.sleep(STEP_S)
    return reliefs, ahead
