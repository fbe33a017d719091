"""One process of a demo service: takes requests at the scene's pace, and works for each of them.

Run as ``python -m escra_controller.demo.worker`` with one JSON object (``Job``) as its argument.
Says ``ready``, reads when to start (on the clock of time.monotonic, which all processes of a host
share), and prints one JSON object (``Report``) at the end.
"""

import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from escra_controller.demo.scene import Scene

REQUEST_CPU_S = 0.004
# A client gives up when it has waited this long.
PATIENCE_S = 0.3


@dataclass(frozen=True, slots=True)
class Job:
    """One of the ``processes`` that share the load of service ``index``."""

    scene: Scene
    index: int
    processes: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Report:
    """Requests offered and done, and how long each done one took."""

    offered: int
    done: int
    waits_ms: list[int]


def work(job: Job, start: float) -> Report:
    def pause(at_s: float) -> float:
        """Seconds to the next request; with jitter, because no two clients are in step."""
        return REQUEST_CPU_S / (job.scene.demand(job.index, at_s) / job.processes) * dice.uniform(0.5, 1.5)

    dice = random.Random(job.seed)
    parent = os.getppid()
    return serve(pause, lambda: time.monotonic() - start, job.seconds, lambda: os.getppid() == parent)


def serve(
    pause: Callable[[float], float], clock: Callable[[], float], seconds: float, wanted: Callable[[], bool]
) -> Report:
    """Serve until the time is over, or nobody is there to hear the result."""
    queue: deque[float] = deque()
    waits: list[int] = []
    arrival, offered = pause(0.0), 0
    while (now := clock()) < seconds and wanted():
        while arrival <= now:
            queue.append(arrival)
            offered += 1
            arrival += pause(arrival)
        while queue and now - queue[0] > PATIENCE_S:
            queue.popleft()
        if queue:
            _spin(REQUEST_CPU_S)
            waits.append(round((clock() - queue.popleft()) * 1000))
        else:
            time.sleep(max(0.0, min(arrival, seconds) - now))
    return Report(offered, len(waits), waits)


def _spin(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        sum(range(200))


if __name__ == "__main__":
    print("ready", flush=True)
    print(msgspec.json.encode(work(msgspec.json.decode(sys.argv[1], type=Job), float(input()))).decode())
