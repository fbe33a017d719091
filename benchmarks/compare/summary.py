"""From repetitions to cells: medians, and how sure they are.  Pure."""

import random
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

RESAMPLES = 2000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A median and the bootstrap interval around it."""

    median: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in self._asdict().items()}


def estimate(values: Sequence[float], seed: int = 1) -> Estimate:
    """Percentile bootstrap of the median (Efron 1979): ``values`` drawn again with replacement, many times.

    With few values the interval is as wide as they are apart, and never wider: it says nothing about what
    was not seen.
    """
    dice = random.Random(seed)
    medians = sorted(median(dice.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Estimate(median(values), medians[tail], medians[-tail - 1])


def summarised(repetitions: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each metric that all of them have."""
    names = [name for name in repetitions[0] if all(name in each for each in repetitions)]
    return {name: estimate([each[name] for each in repetitions]).rounded() for name in names}
