"""Kubernetes' Vertical Pod Autoscaler, its CPU recommendation and its updater in place.

From kubernetes/autoscaler, vertical-pod-autoscaler: ``pkg/recommender/logic/recommender.go`` (90th
percentile, 15 % margin, bounds at the 50th and 95th with a confidence that grows with the history),
``docs/flags.md`` (one minute, 25 millicores at least).  The updater acts when what is in force is outside
of the bounds, or, 12 hours after the last change, is 10 % off.

Its history begins with the controller; the limit a container comes with should be what VPA would have said
from the history before (``recommendation``).  It knows no limit for an application: what it asks for beyond
Ω the pool refuses.
"""

from math import ceil

from escra_controller.policy.base import Restless, Seen, Settings, Wish
from escra_controller.policy.histogram import DecayingHistogram

PERIOD_S = 60.0
HALF_LIFE_S = 24 * 3600.0
TARGET, LOWER, UPPER = 0.9, 0.5, 0.95
MARGIN = 1.15
LEAST_MILLI = 25
DAY_S = 24 * 3600.0
SETTLED_S = 12 * 3600.0
SIGNIFICANT = 0.1


class VpaRule(Restless):
    def __init__(self, settings: Settings) -> None:
        self._period_s = settings.period_s or PERIOD_S
        self._histogram = DecayingHistogram(HALF_LIFE_S)
        self._began_at: float | None = None
        self._sampled_at = 0.0
        self._changed_at = 0.0
        self._core_s = self._seconds = 0.0  # what was used since the last sample, and in what time

    def decide(self, seen: Seen, now: float) -> Wish | None:
        latest = seen.demand.latest
        if latest is None:
            return None
        if self._began_at is None:
            self._began_at = self._sampled_at = self._changed_at = now
            if seen.limit != seen.original:
                return Wish(seen.original, "vpa", "what it came with is the recommendation so far")
        if seen.sampled:
            length = latest.end - latest.start
            self._core_s += latest.used * length
            self._seconds += length
        if now - self._sampled_at < self._period_s:
            return None
        self._sampled_at = now
        self._histogram.add(self._core_s / self._seconds if self._seconds else latest.used, now)
        self._core_s = self._seconds = 0.0
        days = (now - self._began_at) / DAY_S
        lower = self._at(LOWER) * (1 + 0.001 / days) ** -2
        upper = self._at(UPPER) * (1 + 1 / days)
        target = self._at(TARGET)
        stale = now - self._changed_at >= SETTLED_S and abs(target - seen.limit) >= SIGNIFICANT * seen.limit
        if lower <= seen.limit <= upper and not stale:
            return None
        self._changed_at = now
        numbers = {"lower_cores": lower / 1000, "upper_cores": upper / 1000}
        return Wish(ceil(target), "vpa", "its limit is outside of the recommendation's bounds", numbers)

    def _at(self, share: float) -> float:
        return max(LEAST_MILLI, self._histogram.percentile(share) * MARGIN)


def recommendation(used_milli: list[float]) -> int:
    """The target from equally old samples of use, in millicores."""
    histogram = DecayingHistogram(HALF_LIFE_S)
    for used in used_milli:
        histogram.add(used, 0.0)
    return max(LEAST_MILLI, ceil(histogram.percentile(TARGET) * MARGIN))
