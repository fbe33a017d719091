"""A Docker Engine whose use is known, and one repetition of a function on it, with or without Escra."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.compare.cell import LATE_MS, STRANGERS_CORES
from benchmarks.compare.invocations import Function, Invocation, metrics
from benchmarks.compare.invoker import PATIENCE_S, Invoker
from benchmarks.compare.observer import processes_cpu_s
from benchmarks.compare.poolobserver import PoolObserver, Seen
from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.debian_image import PILLOW, pillow_tar
from tests.docker_engine import DockerEngine, EngineTrouble, running_engine
from tests.kernel_cgroups import KernelCgroup, throwaway

PHOTOGRAPH = {"width": 3000, "height": 2000}
# What nobody can leave out: Ω, here what the fixed limits of a full pool sum to.
DEFAULTS = """\
[apps.{name}]
cpu = {cores:g}
memory = "{size}B"
"""
# And what somebody who runs functions would say besides.  A job works for half a second: it shall not wait
# for a tenth of one to be noticed, nor keep its limit for seconds after its end.  None can use more than its
# allotment; a tenth above it is room for the fresh quota that a raise hands out, or none is made at once.
SETTINGS = {
    "escra": (
        """\
[policy]
idle_s = 0.1
[memory]
reclaim_s = 0.5
horizon_s = 0.1
"""
        + DEFAULTS
        + """\
cpu_min = 0.15
cpu_max = {ceiling_cores:g}
memory_max = "{allotment_mib}MiB"
""",
        "interval = 0.02\n",
    ),
    "escra-defaults": (DEFAULTS, ""),
}


@dataclass(frozen=True, slots=True)
class Host:
    """``group`` is the engine's own cgroup: its containers are not in there."""

    hierarchy: Hierarchy
    docker: DockerEngine
    group: KernelCgroup

    def used_s(self, path: str) -> float:
        opened = self.hierarchy.open(path)
        usage_usec = opened.read().usage_usec
        opened.close()
        return usage_usec / 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition of a function under a regime; ``machine`` is what _Machine says."""

    done: list[Invocation]
    seen: Seen
    started: int
    lost: int
    oom_kills: int
    machine: dict[str, float]

    @property
    def noise(self) -> str:
        """Why it should be done again; empty when it need not."""
        strangers = self.machine["strangers_cores"] + self.machine["steal_cores"]
        if strangers > STRANGERS_CORES:
            return f"others used {strangers:.2f} cores"
        late_ms = self.metrics()["late_ms_p99"]
        return f"invocations were {late_ms:.1f} ms late" if late_ms > LATE_MS else ""

    def metrics(self) -> dict[str, float]:
        return metrics(self.done, self.seen.samples, PATIENCE_S) | {
            "started": float(self.started),
            "throttled_ms_per_invocation": self.seen.throttled_s * 1000 / len(self.done),
            **self.machine,
        }


@contextmanager
def hosting(hierarchy: Hierarchy, say: Callable[[str], None]) -> Iterator[Host]:
    """Raises CannotBuild or EngineTrouble where this machine cannot."""
    tar = pillow_tar()
    with throwaway(hierarchy) as group, _engine(say) as docker:
        for process in psutil.Process().children(recursive=True):
            if process.name() in ("dockerd", "containerd"):
                for directory in group.directories:
                    (directory / "cgroup.procs").write_text(str(process.pid))
        docker.docker("import", str(tar), PILLOW)
        yield Host(hierarchy, docker, group)


@contextmanager
def _engine(say: Callable[[str], None]) -> Iterator[DockerEngine]:
    """A copy of the image for every container would be most of a cold start."""
    started = False
    try:
        with running_engine("overlay2") as docker:
            started = True
            yield docker
    except EngineTrouble:
        if started:
            raise
        say("no overlay2 here: every container gets a copy of the image, and cold starts are slow")
        with running_engine() as docker:
            yield docker


def photograph(docker: DockerEngine) -> bytes:
    """Made in a container, for it takes Pillow."""

    async def take(invoker: Invoker) -> bytes:
        async with invoker.serving():
            return await invoker.ask("photograph", **PHOTOGRAPH)

    with tempfile.TemporaryDirectory(prefix="escra-serverless-") as folder:
        camera = Function("camera", "photograph", clients=1, delay_s=1.0, pool=1)
        return asyncio.run(take(Invoker(docker.socket, Path(folder), camera, {})))


def repeat(host: Host, function: Function, regime: str, planned: Sequence[float], payload: bytes) -> Run:
    """The invocations at their times, from no container to none."""
    with (
        tempfile.TemporaryDirectory(prefix="escra-serverless-") as folder,
        _regime(host.docker, function, regime) as pair,
    ):
        labels = {"escra.app": function.name} if pair else {}
        invoker = Invoker(host.docker.socket, Path(folder), function, labels)
        before = _Machine(host, pair)
        done, seen = asyncio.run(_serve(invoker, host, planned, payload))
        return Run(done, seen, invoker.started, invoker.lost, invoker.oom_kills, before.since())


async def _serve(
    invoker: Invoker, host: Host, planned: Sequence[float], payload: bytes
) -> tuple[list[Invocation], Seen]:
    """Observed from the first invocation until it is time for another round and all have been answered."""
    function = invoker.function
    async with asyncio.timeout(planned[-1] + 2 * PATIENCE_S), invoker.serving():
        observer = PoolObserver(host.hierarchy, host.docker.cgroup_parent, function)
        start = time.monotonic()
        calls = [asyncio.ensure_future(invoker.invoke(start, at, payload)) for at in planned]
        with observer:
            done = await asyncio.gather(*calls)
            await asyncio.sleep(max(0.0, start + planned[-1] + function.delay_s - time.monotonic()))
        return done, observer.seen


@contextmanager
def _regime(docker: DockerEngine, function: Function, regime: str) -> Iterator[Pair | None]:
    """The daemons, where there are some."""
    if regime == "fixed":
        yield None
        return
    controller, agent = SETTINGS[regime]
    controller = "grace_s = 0\n" + controller.format(
        name=function.name,
        cores=function.omega_cores,
        size=function.omega_bytes,
        ceiling_cores=1.1 * function.cores,
        allotment_mib=function.memory_mib,
    )
    agent += f'[docker]\nsocket = "{docker.socket.removeprefix("unix://")}"\n'
    with running_pair(controller, agent, nice=-10) as pair:
        pair.wait_until(lambda: bool(pair.ask("agents")), "the agent joined")
        yield pair


class _Machine:
    """What ran on this machine since it was made, in cores, and who it was; ``strangers`` are all others."""

    def __init__(self, host: Host, pair: Pair | None) -> None:
        self._host, self._pair = host, pair
        self._at, self._before = time.monotonic(), self._now()

    def _now(self) -> dict[str, float]:
        times, pair = psutil.cpu_times(), self._pair
        known = {
            "containers": self._host.used_s(self._host.docker.cgroup_parent),
            "engine": self._host.used_s(self._host.group.path),
            "daemons": processes_cpu_s([process.pid for process in pair.processes.values()]) if pair else 0.0,
            "own": time.process_time(),
        }
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        return {
            **known,
            "strangers": busy - sum(known.values()),
            "steal": times.steal,
            "writes": float(pair.ask("agents")[0]["writes"]) if pair else 0.0,
        }

    def since(self) -> dict[str, float]:
        """Per second; and the limits written."""
        seconds, now = time.monotonic() - self._at, self._now()
        rates = {name: (now[name] - before) / seconds for name, before in self._before.items()}
        writes = rates.pop("writes")
        return {"writes_per_s": writes, **{f"{name}_cores": rate for name, rate in rates.items()}}
