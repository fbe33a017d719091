"""The published formula, and what has to stand around it on a real host.

Growth, from the authors' talk (ICDCS 2022):

    q_i[t+1] = q_i[t] + mean_n(th_i) * Υ * (Ω - Σ_j q_j[t])

Around it: a cut that causes throttling is undone at once (Autothrottle's rollback, K23), a level
that once throttled is not cut to again while the work goes on, a container that wakes up has its last
working level back, and one that bursts as it did before goes to the level that it used then: the formula
alone would give most of the pool to whoever throttles first, and the others would have to wait for it.
"""

from dataclasses import dataclass
from math import ceil

from escra_controller.policy.base import Seen, Settings, Wish

# A cut smaller than this share of the limit is not worth the write (each one refills, K3).
LEAST_CUT = 0.02
# With less than this share of Ω free the pool counts as exhausted.
EXHAUSTED = 0.01
# The formula halves what is left for ever; below this share of Ω the rest goes in one step.
LEAST_STEP = 0.02
# What it used in a burst before is gone back to at once when it is so many times the limit.
LEAST_RISE = 1.2
# Who is throttled in this share of its last three intervals starves, and asks others when the pool is
# empty.  A period cut short now and then is no reason: with small quotas the others have those, too,
# and ask back what is taken from them (benchmarks/README.md).
STARVING = 0.9
# So many of its limits it asks for then.
APPETITE = 2.0


@dataclass(frozen=True, slots=True)
class _Mark:
    """A limit, and when something happened at it."""

    limit: int
    at: float


class EscraRule:
    __slots__ = ("_cut", "_half_at", "_peaks", "_raised_at", "_s", "_tight", "_working")

    def __init__(self, settings: Settings) -> None:
        self._s = settings
        self._cut: _Mark | None = None  # the limit before the last cut
        self._tight: _Mark | None = None  # the highest limit that throttled lately
        self._working: int | None = None  # the limit before it fell idle
        self._raised_at = float("-inf")
        # The most it used in the half of ``remember_s`` before this one, and in this one, which began then.
        self._peaks = 0.0, 0.0
        self._half_at = float("-inf")

    def decide(self, seen: Seen, now: float) -> Wish | None:
        latest = seen.demand.latest
        if latest is None:
            return None
        if seen.sampled and not seen.demand.dry:
            self._remember_peak(latest.used, now)
        if seen.sampled and (latest.throttled or seen.demand.dry):
            return self._grow(seen, now)
        if self._working is not None:
            return self._wake(seen, now) if seen.sampled and latest.used * 2 >= seen.limit else None
        if idle_s := seen.demand.idle_for(now):
            return self._rest(seen, idle_s) if idle_s >= self._s.idle_s else None
        return self._shrink(seen, now)

    def quiet_until(self, seen: Seen, now: float) -> float:
        latest = seen.demand.latest
        if latest is None or self._working is not None:
            return float("inf")
        if idle_s := seen.demand.idle_for(now):
            return now + self._s.idle_s - idle_s if seen.limit > seen.floor else float("inf")
        cut_at = self._cut.at if self._cut else float("-inf")
        paced = max(cut_at + self._s.shrink_every_s, self._raised_at + self._s.shrink_window_s)
        if paced > now:
            return paced
        if latest.end > now - self._s.shrink_window_s:
            return now  # the window still moves over what was seen
        if self._tight is not None and self._tight.at + self._s.remember_s >= now:
            return self._tight.at + self._s.remember_s
        return float("inf")

    def _grow(self, seen: Seen, now: float) -> Wish | None:
        throttled, starves = seen.demand.mean_throttled(self._s.window), _starves(seen)
        numbers = {"throttled": throttled, "upsilon": self._s.upsilon, "free_cores": seen.free / 1000}
        self._remember_tight(seen.limit, now)
        if (wake := self._wake(seen, now)) is not None:
            return wake
        cause = f"throttled in {throttled:.0%} of its periods"
        if seen.demand.dry:
            cause = "its quota will not do for the period under way"
        cut, self._cut = self._cut, None
        undone = cut.limit if cut and now - cut.at <= self._s.undo_s else 0
        if (level := self._level(seen)) > undone:
            self._raised_at = now
            cause += ", below what it used in a burst before"
            return Wish(level, "level", cause, numbers, throttled=True, asks=starves)
        if undone > seen.limit:
            cause = "the last cut made it throttle, so the cut is undone"
            return Wish(undone, "undo", cause, numbers, throttled=True, asks=starves)
        if seen.limit >= seen.ceiling:
            cause = "throttled, but at its ceiling"
            return Wish(seen.limit, "ceiling", cause, numbers, throttled=True)
        step = max(throttled * self._s.upsilon * seen.free, LEAST_STEP * seen.omega)
        asks = APPETITE * seen.limit if starves else 0
        exhausted, below = seen.free < EXHAUSTED * seen.omega, seen.limit < seen.fair
        if below:
            step = max(step, min(asks, seen.fair - seen.limit))
        elif exhausted:
            step = asks
        if exhausted:
            cause += f", {'below' if below else 'above'} its fair share, and the pool is empty"
        rule = "throttled" if not exhausted else "fair" if below else "exhausted"
        self._raised_at = now
        return Wish(seen.limit + ceil(step), rule, cause, numbers, throttled=True, asks=starves)

    def _wake(self, seen: Seen, now: float) -> Wish | None:
        working, self._working = self._working, None
        self._raised_at = now
        if working is None or working <= seen.limit:
            return None
        numbers = {"used_cores": seen.demand.used() / 1000, "free_cores": seen.free / 1000}
        cause = "it works again and gets its last working level back"
        return Wish(working, "wake", cause, numbers, throttled=True, asks=_starves(seen))

    def _rest(self, seen: Seen, idle_s: float) -> Wish | None:
        if seen.limit <= seen.floor:
            return None
        self._working, self._cut = seen.limit, None
        return Wish(seen.floor, "idle", f"no use for {idle_s:.1f} s", {"idle_s": idle_s})

    def _shrink(self, seen: Seen, now: float) -> Wish | None:
        if self._cut and now - self._cut.at < self._s.shrink_every_s:
            return None
        if now - self._raised_at < self._s.shrink_window_s:
            return None  # what the window saw before the raise says nothing about the limit now
        window = seen.demand.window(now - self._s.shrink_window_s)
        if window is None or window.throttled:
            return None
        unused = seen.limit - window.mean_used
        # A limit that has come to rest stays until clearly more is unused, so that noise at
        # the threshold does not move it.
        resting = self._cut is None or now - self._cut.at > 4 * self._s.shrink_every_s
        if unused <= self._s.gamma * seen.limit * (1.25 if resting else 1.0):
            return None
        target = max(
            seen.floor,
            round(seen.limit - self._s.kappa * unused),
            ceil(window.peak_used * (1 + self._s.headroom)),
            self._not_below(window.mean_used, now),
        )
        if target > seen.limit * (1 - LEAST_CUT):
            return None
        self._cut = _Mark(seen.limit, now)
        numbers = {"used_cores": window.mean_used / 1000, "peak_cores": window.peak_used / 1000}
        return Wish(target, "shrink", f"{unused / seen.limit:.0%} of its quota is unused", numbers)

    def _level(self, seen: Seen) -> int:
        """What it used in a burst before, with the headroom.

        0 when that is not much above its limit, or more than the pool has: others would be cut for what
        may not be needed this time.
        """
        peak = max(self._peaks)
        level = min(ceil(peak * (1 + self._s.headroom)), seen.ceiling)
        return level if peak > seen.limit * LEAST_RISE and level <= seen.limit + seen.free else 0

    def _remember_peak(self, used: float, now: float) -> None:
        age_s, (before, latest) = now - self._half_at, self._peaks
        if used <= latest and age_s <= self._s.remember_s / 2:
            return
        if age_s > self._s.remember_s / 2:
            before, latest, self._half_at = latest if age_s < self._s.remember_s else 0.0, 0.0, now
        self._peaks = before, max(latest, used)

    def _remember_tight(self, limit: int, now: float) -> None:
        tight = self._tight
        stale = tight is None or now - tight.at > self._s.remember_s
        if tight is None or stale or limit >= tight.limit:
            self._tight = _Mark(limit, now)

    def _not_below(self, mean_used: float, now: float) -> int:
        """Just above the level that throttled, as long as the demand that did it is still there."""
        tight = self._tight
        if tight is None or now - tight.at > self._s.remember_s or mean_used < tight.limit / 2:
            return 0
        return ceil(tight.limit * 1.05)


def _starves(seen: Seen) -> bool:
    return seen.demand.mean_throttled(3) >= STARVING
