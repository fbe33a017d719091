"""When each request is to be sent, and what it asks for: open loop, decided before the run.  Pure.

``fixed``    the same distance between all of them
``exp``      exponential distances, a Poisson process
``burst``    a Poisson process of 70 % of the rate, and for a quarter of the time work for 120 % more: bursts
             of a second, each of one operation only (a flash crowd comes for one page)
``alibaba``  a Poisson process whose rate moves as service call rates in public cluster traces do: a slow wave
             with two humps, noise that remembers, and short spikes.  It is the shape; no trace is replayed
"""

import math
import random
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, get_args

Workload = Literal["fixed", "exp", "burst", "alibaba"]
WORKLOADS: tuple[Workload, ...] = get_args(Workload)

# Of the mean rate: what bursts add while they last, and how much of the time they last.
BURST_EXTRA = 1.2
BURST_SHARE = 0.25
BURST_S = 1.0
# Steps of the trace-shaped curve, how much of its noise is left a step later, and how wide the noise is.
STEP_S = 0.5
MEMORY = 0.8
NOISE = 0.25
SPIKE_EVERY = 30
SPIKE = 2.0


class Arrival(NamedTuple):
    """``size`` multiplies the work of this request; its mean is 1."""

    at_s: float
    operation: str
    size: float


def schedule(
    workload: Workload,
    seconds: float,
    rate: float,
    mix: Mapping[str, float],
    seed: int,
    costs: Mapping[str, float],
) -> list[Arrival]:
    """About ``rate * seconds`` requests in order of time; the same for the same arguments.

    ``mix`` has a weight for each operation, ``costs`` its work in any unit: a burst of what costs twice as
    much has half as many requests.
    """
    dice = random.Random(f"{workload} {seed}")
    mean = sum(mix[name] * costs[name] for name in mix) / sum(mix.values())
    worth = {name: mean / costs[name] for name in mix}
    times = _times(workload, seconds, rate, worth, dice)
    names, weights = list(mix), list(mix.values())
    return [
        Arrival(at_s, only or dice.choices(names, weights)[0], dice.lognormvariate(-0.08, 0.4))
        for at_s, only in sorted(times)
    ]


def _times(
    workload: Workload, seconds: float, rate: float, worth: Mapping[str, float], dice: random.Random
) -> Iterator[tuple[float, str]]:
    """Times, and the operation where it is not for the mix to say."""
    if workload == "fixed":
        yield from ((n / rate, "") for n in range(round(seconds * rate)))
    elif workload == "exp":
        yield from ((at, "") for at in _poisson(0, seconds, rate, dice))
    elif workload == "burst":
        base = rate * (1 - BURST_SHARE * BURST_EXTRA)
        yield from ((at, "") for at in _poisson(0, seconds, base, dice))
        for begin, end in _bursts(seconds, dice):
            only = dice.choice(list(worth))
            yield from ((at, only) for at in _poisson(begin, end, rate * BURST_EXTRA * worth[only], dice))
    else:
        levels = _trace(math.ceil(seconds / STEP_S), dice)
        for step, level in enumerate(levels):
            begin, end = step * STEP_S, min(seconds, (step + 1) * STEP_S)
            yield from ((at, "") for at in _poisson(begin, end, rate * level, dice))


def _poisson(begin: float, end: float, rate: float, dice: random.Random) -> Iterator[float]:
    at = begin + dice.expovariate(rate)
    while at < end:
        yield at
        at += dice.expovariate(rate)


def _bursts(seconds: float, dice: random.Random) -> Iterator[tuple[float, float]]:
    """One in each stretch of time, somewhere in it, for a quarter of it."""
    stretch = BURST_S / BURST_SHARE
    for n in range(max(1, round(seconds / stretch))):
        begin = n * stretch + dice.uniform(0, stretch - BURST_S)
        yield begin, min(seconds, begin + BURST_S)


def _trace(steps: int, dice: random.Random) -> list[float]:
    """Levels with a mean of 1."""
    noise, levels = 0.0, []
    for step in range(steps):
        day = step / steps
        wave = 1 + 0.3 * math.sin(2 * math.pi * (day - 0.2)) + 0.15 * math.sin(4 * math.pi * day)
        noise = MEMORY * noise + math.sqrt(1 - MEMORY**2) * dice.gauss(0, NOISE)
        spike = SPIKE if dice.randrange(SPIKE_EVERY) == 0 else 1.0
        levels.append(wave * math.exp(noise) * spike)
    mean = sum(levels) / steps
    return [level / mean for level in levels]
