"""From a throttled period to a higher quota in the kernel, and from Docker's start event to a first limit.

``throttle_to_relief_ms``: four cgroups take turns in short bursts that their limits cannot hold.  A watcher
reads their counters every half millisecond: the clock starts when nr_throttled has grown (the end of the
period that was cut short) and stops when a higher quota is in force.

``demand_to_relief_ms``: see relief.py.

``attach_ms``: labelled containers are started on a Docker Engine of the benchmark's own; from the time stamp
in Docker's start event to the first limit in the container's cgroup.

``controller_ms``: the controller's own share, by an agent that only speaks: 100 containers, one of them
throttled, from the sample leaving to the order arriving.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.numbers import summary_ms
from benchmarks.pair import running_pair
from benchmarks.relief import demand_to_relief
from benchmarks.speaker import Speaker
from escra_agent.cgroupfs import Cgroup
from escra_agent.errors import CgroupGone
from escra_agent.hierarchy import Hierarchy
from tests.docker_engine import IMAGE, DockerEngine, running_engine
from tests.docker_engine import whats_missing as docker_missing
from tests.kernel_cgroups import controllers_enabled, throwaway

LOAD = str(Path(__file__).with_name("load.py"))
STEP_S = 0.0005
GROUPS = 4
# Limits fall back quickly between bursts, so that there is much to measure in little time; how a
# raise comes about is not touched by these.
POLICY = "[policy]\nshrink_every_s = 0.1\nshrink_window_s = 0.3\nidle_s = 1.0\nremember_s = 0.1\n"


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy):
        say("throttle to relief")
        # Most raises come ahead of the throttling (foresight.py): so these are few.
        relief = _relief(hierarchy, 20 if quick else 210, 480.0)
        demand = demand_to_relief(hierarchy, 8 if quick else 60, 60.0, say)
        say("attach")
        attach = _attach(hierarchy, 5 if quick else 60)
        say("the controller's own share")
        share = _controller_share(20 if quick else 300)
    return {
        "throttle_to_relief_ms": summary_ms(relief),
        "demand_to_relief_ms": demand,
        "attach_ms": summary_ms(attach),
        "controller_ms": summary_ms(share),
    }


# ---- throttle to relief ------------------------------------------------------------


def _relief(hierarchy: Hierarchy, events: int, most_s: float) -> list[float]:
    with ExitStack() as stack:
        groups = [stack.enter_context(throwaway(hierarchy)) for _ in range(GROUPS)]
        names = [f"g{n}" for n in range(GROUPS)]
        entries = [
            f'[[cgroup]]\npath = "{group.path}"\napp = "bench"\nname = "{name}"\n'
            for group, name in zip(groups, names, strict=True)
        ]
        pair = stack.enter_context(
            running_pair(
                f'grace_s = 0\n{POLICY}[apps.bench]\ncpu = 16\nmemory = "1GiB"\n',
                "[docker]\nenabled = false\n" + "".join(entries),
                nice=-10,  # as its unit sets it
            )
        )
        pair.wait_managed(*names)
        for seed, group in enumerate(groups):
            group.start(sys.executable, LOAD, "0.25", "1.5", "0.05", str(seed))
        cgroups = [group.open() for group in groups]
        for cgroup in cgroups:
            stack.callback(cgroup.close)
        return _watch(cgroups, events, most_s)


def _watch(cgroups: list[Cgroup], events: int, most_s: float) -> list[float]:
    """Reliefs, in seconds.  A throttling that ends without a raise (the burst was over) is none."""
    last = [cgroup.read() for cgroup in cgroups]
    since: list[float | None] = [None] * len(cgroups)
    reliefs: list[float] = []
    end = time.monotonic() + most_s
    while len(reliefs) < events and time.monotonic() < end:
        for n, cgroup in enumerate(cgroups):
            now = cgroup.read()
            was, began = last[n], since[n]
            last[n] = now
            quota, before = now.limit.quota_usec or 0, was.limit.quota_usec or 0
            if began is not None and quota > before:
                reliefs.append(now.time_usec / 1e6 - began)
                since[n] = None
            elif (
                began is not None and now.nr_periods > was.nr_periods and now.nr_throttled == was.nr_throttled
            ):
                since[n] = None
            elif began is None and now.nr_throttled > was.nr_throttled and quota == before:
                since[n] = now.time_usec / 1e6
        time.sleep(STEP_S)
    return reliefs


# ---- attach ------------------------------------------------------------------------


def _attach(hierarchy: Hierarchy, containers: int) -> list[float]:
    if missing := docker_missing():
        raise SystemExit(f"attach needs a Docker Engine: {missing}")
    with running_engine() as engine, ExitStack() as stack:
        pair = stack.enter_context(
            running_pair(
                'grace_s = 0\n[apps.bench]\ncpu = 100\nmemory = "1GiB"\n',
                f'[docker]\nsocket = "{engine.socket.removeprefix("unix://")}"\n',
                nice=-10,
            )
        )
        pair.wait_until(lambda: len(pair.ask("agents")) == 1, "agent joined")
        return [_attach_one(engine, hierarchy, n) for n in range(containers)]


def _attach_one(engine: DockerEngine, hierarchy: Hierarchy, n: int) -> float:
    options = ("--label", "escra.app=bench", "--network=none", "--init", f"--name=bench{n}")
    container_id = engine.docker("create", *options, IMAGE, "/bin/sleep", "60")
    time.sleep(random.uniform(0.1, 0.2))  # any phase of the agent's tick
    start = ["docker", "--host", engine.socket, "start", container_id]
    with subprocess.Popen(start, stdout=subprocess.DEVNULL):
        limited = _first_limit(hierarchy, f"{engine.cgroup_parent}/{container_id}")
    until = str(int(time.time()) + 1)
    said = engine.docker(
        *("events", "--since", "0", "--until", until, "--format", "{{json .}}"),
        *("--filter", "event=start", "--filter", f"container={container_id}"),
    )
    engine.docker("rm", "--force", container_id)
    started: int = json.loads(said.splitlines()[-1])["timeNano"]
    return limited - started / 1e9


def _first_limit(hierarchy: Hierarchy, path: str) -> float:
    """The wall clock when the cgroup, once it is there, has a limit."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            cgroup = hierarchy.open(path)
        except CgroupGone:
            time.sleep(0.001)
            continue
        while cgroup.read_limit().quota_usec is None and time.monotonic() < end:
            time.sleep(STEP_S)
        cgroup.close()
        return time.time()
    raise TimeoutError(f"no limit on {path} within 5 s")


# ---- the controller's own share ----------------------------------------------------


def _controller_share(events: int, containers: int = 100) -> list[float]:
    """Sample frame out to order frame in, over loopback, with ``containers`` sampled in every frame."""
    with running_pair(
        'grace_s = 0\n[apps.bench]\ncpu = 900\ncpu_max = 4\nmemory = "1GiB"\n', "", start=False
    ) as pair:
        pair.start("controller")
        pair.wait_until(lambda: pair.control.exists(), "controller listening")
        with Speaker(pair.port, containers) as speaker:
            delays = []
            for n in range(events):
                delays.append(speaker.throttle(1 + n % containers))
                time.sleep(0.1)
            return delays
