"""A histogram in which old samples count less and less, as VPA and Autopilot keep them."""

from math import ceil, log

# Buckets of VPA's recommender: the first ends at 10 millicores, each is 5 % wider than the one before.
FIRST = 10.0
GROWTH = 1.05


class DecayingHistogram:
    """Of amounts in millicores; ``half_life_s`` is the age at which a sample counts half."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._weights: dict[int, float] = {}
        self._at = 0.0

    def add(self, amount: float, now: float) -> None:
        fade = 0.5 ** ((now - self._at) / self._half_life_s)
        self._weights = {bucket: weight * fade for bucket, weight in self._weights.items()}
        self._at = now
        bucket = bucket_of(amount)
        self._weights[bucket] = self._weights.get(bucket, 0.0) + 1.0

    def percentile(self, share: float, *, by_load: bool = False) -> float:
        """The end of the bucket below which ``share`` (0..1) of all samples are; 0 without samples.

        ``by_load``: of what was used, not of the time; a sample counts as much as it used.
        """
        weights = {b: w * (bucket_end(b) if by_load else 1.0) for b, w in self._weights.items()}
        left = share * sum(weights.values())
        for bucket in sorted(weights):
            left -= weights[bucket]
            if left <= 1e-9:
                return bucket_end(bucket)
        return 0.0


def bucket_of(amount: float) -> int:
    """
    >>> bucket_of(9), bucket_of(10), bucket_of(20), bucket_of(20.6)
    (0, 1, 1, 2)
    """
    if amount < FIRST:
        return 0
    # The ends are a geometric series: FIRST * (GROWTH**(n+1) - 1) / (GROWTH - 1).
    return ceil(log(amount * (GROWTH - 1) / FIRST + 1, GROWTH) + 1e-9) - 1


def bucket_end(bucket: int) -> float:
    """
    >>> [round(bucket_end(bucket), 1) for bucket in (0, 1, 2)]
    [10.0, 20.5, 31.5]
    """
    return FIRST * (GROWTH ** (bucket + 1) - 1) / (GROWTH - 1)
