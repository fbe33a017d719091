"""The load: requests at the times that were planned, whether or not earlier ones have been answered.

    python -m benchmarks.compare.generator JOB

JOB is a JSON object (``Job``).  Says ``ready``, reads the time to start (time.monotonic), and prints one
JSON object (``Outcome``).  Latency counts from the time a request was planned for, not from when it could
be sent: a stall of the generator, or of what it talks to, is not left out (no coordinated omission).
"""

import asyncio
import gc
import sys
import time
from typing import Protocol

import msgspec
import uvloop

from benchmarks.compare.applications import Design
from benchmarks.compare.httpwire import Front
from benchmarks.compare.schedules import Arrival, Workload, schedule
from benchmarks.compare.wire import Caller, Tree

# Who asked has lost interest by then.
PATIENCE_S = 2.0


class Job(msgspec.Struct, frozen=True):
    """Requests planned for the first ``warm_s`` are sent and not counted; ``seconds`` are counted."""

    design: Design
    workload: Workload
    entry: str
    rate: float
    warm_s: float
    seconds: float
    seed: int


class Outcome(msgspec.Struct, frozen=True):
    """``latencies_ms`` of requests that were answered in time, ``failed`` is the number of the others.

    ``late_ms`` is how much later than planned each was sent.
    """

    latencies_ms: list[float]
    failed: int
    late_ms: list[float]
    cpu_s: float


class Asking(Protocol):
    async def call(self, deadline: float, tree: Tree) -> bool:
        """Whether it was done in time."""
        ...

    async def close(self) -> None: ...


def caller(entry: str) -> Asking:
    """Of an application's entry."""
    scheme, _, address = entry.partition("://")
    if scheme == "http":
        return Front(address)
    return Caller(int(address.rpartition(":")[2]))


class Generator:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._caller = caller(job.entry)
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._failed = 0

    def plan(self) -> list[Arrival]:
        job, design = self._job, self._job.design
        seconds = job.warm_s + job.seconds
        return schedule(job.workload, seconds, job.rate, design.mix, job.seed, design.costs)

    async def run(self, arrivals: list[Arrival], start: float) -> Outcome:
        tasks = []
        for arrival in arrivals:
            if (wait_s := start + arrival.at_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.ensure_future(self._send(arrival, start + arrival.at_s)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        await self._caller.close()
        return Outcome(self._latencies, self._failed, self._late, time.process_time())

    async def _send(self, arrival: Arrival, planned: float) -> None:
        late_s = time.monotonic() - planned
        deadline = planned + PATIENCE_S
        tree = self._job.design.operations[arrival.operation].scaled(arrival.size)
        try:
            done = await asyncio.wait_for(
                self._caller.call(deadline, tree), max(0.0, deadline - time.monotonic())
            )
        except TimeoutError:
            done = False
        if arrival.at_s < self._job.warm_s:
            return
        self._late.append(round(late_s * 1000, 3))
        if done:
            self._latencies.append(round((time.monotonic() - planned) * 1000, 3))
        else:
            self._failed += 1


async def main(text: str) -> None:
    job = msgspec.json.decode(text, type=Job)
    generator = Generator(job)
    arrivals = generator.plan()
    gc.freeze()
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    outcome = await generator.run(arrivals, start)
    print(msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
