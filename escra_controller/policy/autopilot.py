"""Google Autopilot's moving window recommender for CPU.

From Rzadca et al., "Autopilot: Workload Autoscaling at Google Scale" (EuroSys 2020), section 3.2; no code
is published. Use is sampled every second, and weighed down by half every 12 hours.  A serving job gets the
95th percentile of its load (a second counts as much as it used) plus a margin of 10 to 15 %, and of such
recommendations, one in five minutes, the highest of the last hour.  The recommender that learns from costs
is not here.

With ``period_s`` another step than five minutes, half-life and hour shrink in proportion (the comparison in
Escra's paper ran it so, with 1 to 60 s).  Buckets are 5 % wide each instead of 400 of equal size.  It knows
no limit for an application: what it asks for beyond Ω the pool refuses, and cuts who is above a fair share.
"""

from collections import deque
from math import ceil

from escra_controller.policy.base import Restless, Seen, Settings, Wish
from escra_controller.policy.histogram import DecayingHistogram

PERIOD_S = 300.0
SAMPLE_S = 1.0
HALF_LIVES = 144  # periods in 12 hours
KEPT = 12  # periods in an hour
PERCENTILE = 0.95
MARGIN = 1.15


class AutopilotRule(Restless):
    def __init__(self, settings: Settings) -> None:
        self._period_s = settings.period_s or PERIOD_S
        self._histogram = DecayingHistogram(HALF_LIVES * self._period_s)
        self._recommended: deque[float] = deque(maxlen=KEPT)
        self._sampled_at: float | None = None
        self._decided_at = 0.0

    def decide(self, seen: Seen, now: float) -> Wish | None:
        if self._sampled_at is None:
            self._sampled_at = self._decided_at = now
        if now - self._sampled_at < SAMPLE_S:
            return None
        window = seen.demand.window(self._sampled_at)
        self._sampled_at = now
        if window is None:
            return None
        self._histogram.add(window.mean_used, now)
        if now - self._decided_at < self._period_s:
            return None
        self._decided_at = now
        percentile = self._histogram.percentile(PERCENTILE, by_load=True)
        self._recommended.append(percentile * MARGIN)
        numbers = {"percentile_cores": percentile / 1000}
        return Wish(ceil(max(self._recommended)), "autopilot", "the highest recommendation of late", numbers)
