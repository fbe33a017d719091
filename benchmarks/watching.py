"""What it costs the controller when somebody watches, and how long `escra ps` takes, with many containers.

The controller is a process of its own and the containers are spoken for by another; the load is the same with
and without the watcher, phases alternate, and what is compared is the controller's CPU time.
"""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.numbers import percentile
from benchmarks.pair import Pair, running_pair
from escra_controller.top.subscription import Subscription

PHASES, PHASE_S = 3, 4.0
PS_RUNS = 12
HOSTS = 10
SETTLE_S = 6.0
APP = '[apps.bench]\ncpu = 600\nmemory = "512GiB"\n'


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """At 100 and 1,000 containers; shares are of one core."""
    result: dict[str, Any] = {}
    for containers in (100, 1000):
        say(f"{containers} containers")
        result[f"containers_{containers}"] = _measured(containers, 1 if quick else PHASES)
    return result


def _measured(containers: int, phases: int) -> dict[str, Any]:
    with running_pair(APP, "", start=False) as pair:
        pair.start("controller")
        pair.wait_until(lambda: pair.ask("status") is not None, "the controller answers")
        with _speaking(pair, containers):
            time.sleep(SETTLE_S)
            controller = psutil.Process(pair.processes["controller"].pid)
            alone, watched = [], []
            for _ in range(phases):
                alone.append(_share(controller, time.sleep, PHASE_S))
                watched.append(_share(controller, lambda s: asyncio.run(_watch(pair.control, s)), PHASE_S))
            times = [_ps_s(pair) for _ in range(PS_RUNS)]
    return {
        "controller_share_alone": round(statistics.mean(alone), 4),
        "controller_share_watched": round(statistics.mean(watched), 4),
        "watching_costs": round(statistics.mean(watched) - statistics.mean(alone), 4),
        "ps_p50_s": round(percentile(times, 50), 3),
        "ps_worst_s": round(max(times), 3),
    }


@contextlib.contextmanager
def _speaking(pair: Pair, containers: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.fleet", str(pair.port), str(HOSTS), str(containers // HOSTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as fleet:
        try:
            assert fleet.stdout is not None
            if not fleet.stdout.readline():
                raise RuntimeError(f"the hosts did not join\n{pair.logs()}")
            pair.wait_until(lambda: pair.ask("status")["managed"] == containers, "all managed", 60.0)
            yield
        finally:
            fleet.terminate()


def _share(process: psutil.Process, spend: Any, seconds: float) -> float:
    """CPU time of ``process`` per second while ``spend`` takes its time."""
    times, began = process.cpu_times(), time.monotonic()
    spend(seconds)
    after = process.cpu_times()
    used: float = after.user + after.system - times.user - times.system
    return used / (time.monotonic() - began)


async def _watch(control: Path, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async with contextlib.aclosing(Subscription(control, 1.0, 5.0).heard()) as heard:
                async for _ in heard:
                    pass


def _ps_s(pair: Pair) -> float:
    command = [str(Path(sys.executable).with_name("escra")), "ps", "--socket", str(pair.control)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
