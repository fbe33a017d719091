"""Autothrottle's Captain: keep the share of throttled periods near a target.

From Wang et al., "Autothrottle: A Practical Bi-Level Approach to Resource Management for SLO-Targeted
Microservices" (NSDI 2024), and microsoft/autothrottle, ``worker-daemon.py``, class CaptainScaler.  Once a
second:

- throttled in more than three times the target: the limit grows by that excess, as a factor;
- else it may fall to the peak of 5 s plus ``margin`` standard deviations, if that is a tenth less; by half
  at most.

``margin`` learns: it moves by ratio minus target each time.  Looked at every 100 ms, a cut after which
throttling exceeds three times the target is rolled back, and as much again is added.  The Tower, which
learns targets from an application's latency, is not here: the target is ``throttle_target`` for all.  It
knows no limit for an application: what it asks for beyond Ω the pool refuses, and cuts who is above a fair
share when others need it.
"""

from math import ceil
from statistics import stdev

from escra_controller.policy.base import Restless, Seen, Settings, Wish

PERIOD_S = 1.0
HISTORY_S = 5.0
TOLERANCE = 3.0
LEAST_MILLI = 10
MARGIN = 3.0


class AutothrottleRule(Restless):
    def __init__(self, settings: Settings) -> None:
        self._target = settings.throttle_target
        self._margin = MARGIN
        self._before_cut: int | None = None
        self._since = 0.0  # throttling before this was answered already
        self._decided_at: float | None = None

    def decide(self, seen: Seen, now: float) -> Wish | None:
        if self._decided_at is None:
            self._decided_at = self._since = now
        ratio = self._throttled(seen, now)
        if self._before_cut is not None and ratio > TOLERANCE * self._target:
            target = 2 * self._before_cut - seen.limit
            self._margin += ratio - self._target
            self._before_cut, self._since = None, now
            return self._wish(target, "the last cut made it throttle", ratio, throttled=True)
        if now - self._decided_at < PERIOD_S:
            return None
        self._margin = max(0.0, self._margin + ratio - self._target)
        self._before_cut, self._since, self._decided_at = None, now, now
        if ratio > TOLERANCE * self._target:
            target = ceil(seen.limit * (1 + ratio - TOLERANCE * self._target))
            return self._wish(target, "throttled more than its target allows", ratio, throttled=True)
        used = [interval.used for interval in seen.demand.ended_after(now - HISTORY_S)] or [
            seen.demand.used()
        ]
        enough = max(used) + self._margin * (stdev(used) if len(used) > 1 else 0.0)
        if enough > 0.9 * seen.limit:
            return None
        self._before_cut = seen.limit
        target = max(LEAST_MILLI, ceil(seen.limit * 0.5), ceil(enough))
        return self._wish(target, "its recent peak and margin are well below", ratio, throttled=False)

    def _throttled(self, seen: Seen, now: float) -> float:
        """The share of the last second's periods that were throttled, of those not answered yet."""
        recent = seen.demand.ended_after(max(self._since, now - PERIOD_S))
        return min(1.0, sum(i.throttled * (i.end - i.start) for i in recent) / PERIOD_S)

    def _wish(self, target: int, cause: str, ratio: float, *, throttled: bool) -> Wish:
        return Wish(target, "captain", cause, {"throttled": ratio, "margin": self._margin}, throttled)
