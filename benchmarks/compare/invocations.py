"""What is invoked, when, and what becomes of it as numbers.  Pure.

The pattern is that of the original's evaluation (image-process/scripts/run.py in hunhoffe/ServerlessBench):
a few clients start together, and each invokes the function every ``delay_s``, answered or not.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.numbers import percentile

# A client of the original is a thread that starts a program for each invocation: not all are as fast.
CLIENT_SPREAD_S = 0.05


@dataclass(frozen=True, slots=True)
class Function:
    """``kind`` is a job of function.py, with these ``arguments``.

    ``cores`` and ``memory_mib`` are the allotment of one container, ``pool`` how many there are at most.  A
    container without a job ends after ``keep_s``; ``once``: it ends after its first, and never waits.
    """

    name: str
    kind: str
    clients: int
    delay_s: float
    pool: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    once: bool = False
    keep_s: float = 10.0
    cores: float = 1.0
    memory_mib: int = 256

    @property
    def about(self) -> str:
        kept = "ends after one" if self.once else f"waits {self.keep_s:g} s for the next"
        return (
            f"clients: {self.clients}, each invokes every {self.delay_s:g} s; a container {kept}; pool: "
            f"{self.pool} of {self.cores:g} cores and {self.memory_mib} MiB"
        )

    @property
    def omega_cores(self) -> float:
        """What the fixed limits of a full pool sum to."""
        return self.pool * self.cores

    @property
    def omega_bytes(self) -> int:
        return self.pool * self.memory_mib << 20


# As in the original, where 12 cores of allotments were in use on three large machines, they do not exceed the
# processors, which are two here.  ``image`` and ``grid`` are kept, as OpenWhisk does.
FUNCTIONS = (
    Function("image", "image", clients=2, delay_s=2.0, pool=4),
    Function("image-once", "image", clients=1, delay_s=2.0, pool=4, once=True),
    Function("grid", "grid", 2, 4.0, pool=4, arguments={"rounds": 1200, "rate": 0.5, "penalty": 0.01}),
)


def arrivals(function: Function, seconds: float, seed: int) -> list[float]:
    """When each invocation is to be made, in s; the same for the same arguments."""
    dice = random.Random(f"{function.name} {seed}")
    rounds = max(1, math.floor(seconds / function.delay_s))
    return sorted(
        n * function.delay_s + dice.uniform(0, CLIENT_SPREAD_S)
        for n in range(rounds)
        for _ in range(function.clients)
    )


@dataclass(frozen=True, slots=True)
class Invocation:
    """Times in s from the beginning; ``ended_at`` is infinite where it failed.  ``cold``: none was idle."""

    planned_at: float
    sent_at: float
    ended_at: float
    cold: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """All containers of a function together, in the kernel; ``used_cores`` since the sample before."""

    at_s: float
    containers: int
    limit_cores: float
    used_cores: float
    limit_bytes: float
    used_bytes: int


def metrics(done: Sequence[Invocation], samples: Sequence[Sample], patience_s: float) -> dict[str, float]:
    """Means over the samples; latencies count from the planned time, and a failure as ``patience_s``.

    ``under_way`` is the mean number of invocations that are: what a full allotment for each of them, and
    nothing for containers that wait, would come to.
    """
    waits = {i: min(patience_s, i.ended_at - i.planned_at) * 1000 for i in done}
    named = {
        "invocations": float(len(done)),
        "p50_ms": percentile([*waits.values()], 50),
        "p99_ms": percentile([*waits.values()], 99),
        "cold_share": sum(i.cold for i in done) / len(done),
        "late_ms_p99": percentile([(i.sent_at - i.planned_at) * 1000 for i in done], 99),
    }
    for name, of in (("cold", True), ("warm", False)):
        if some := [wait for i, wait in waits.items() if i.cold is of]:
            named |= {f"{name}_p50_ms": percentile(some, 50), f"{name}_p99_ms": percentile(some, 99)}

    def mean(of: Sequence[float]) -> float:
        return sum(of) / len(of)

    limit_mib = [s.limit_bytes / 2**20 for s in samples]
    return named | {
        "containers": mean([s.containers for s in samples]),
        "under_way": sum(waits.values()) / 1000 / samples[-1].at_s,
        "limit_cores": mean([s.limit_cores for s in samples]),
        "used_cores": mean([s.used_cores for s in samples]),
        "limit_mib": mean(limit_mib),
        "used_mib": mean([s.used_bytes / 2**20 for s in samples]),
        "limit_cores_max": max(s.limit_cores for s in samples),
        "limit_mib_max": max(limit_mib),
    }


RATIOS = ("limit_cores", "limit_mib", "used_cores", "used_mib", "p50_ms", "p99_ms")


def ratios(escra: Mapping[str, float], fixed: Mapping[str, float]) -> dict[str, float]:
    """Escra's to the fixed ones', of one repetition: both had the same arrivals."""
    both = [name for name in RATIOS if name in escra and fixed.get(name)]
    return {name: escra[name] / fixed[name] for name in both}
