"""Koordinator's cfsQuotaBurst: a quota grows by a fifth a second while throttled and the node has room.

From koordinator-sh/koordinator, ``pkg/koordlet/qosmanager/plugins/cpuburst/cpu_burst.go``: x1.2 after a
throttled second, x0.8 when the node is overloaded (its use of the last 5 s at or over half of its
processors), no growth in the tenth below that; never below the container's own limit (the one it came
with), at most three times that.  The token bucket is off, as by default.  The static cpu.cfs_burst_us that
goes with it is ``burst`` in ``[policy]``.

The node's use is what the application's containers use there.  It knows no limit for an application: own
limits must sum to less than Ω to leave anything to grow into, the pool refuses what is beyond, and cuts who
is above a fair share when others need it.
"""

from collections import deque

from escra_controller.policy.base import Restless, Seen, Settings, Wish

PERIOD_S = 1.0
UP, DOWN = 1.2, 0.8
CEILING = 3.0
OVERLOAD = 0.5
COOLING = 0.9 * OVERLOAD
NODE_SAMPLES = 5


class KoordinatorRule(Restless):
    def __init__(self, settings: Settings) -> None:
        self._decided_at: float | None = None
        self._node: deque[float] = deque(maxlen=NODE_SAMPLES)

    def decide(self, seen: Seen, now: float) -> Wish | None:
        if self._decided_at is None:
            self._decided_at = now
        if now - self._decided_at < PERIOD_S:
            return None
        throttled = any(interval.throttled for interval in seen.demand.ended_after(self._decided_at))
        self._decided_at = now
        self._node.append(seen.host_used() / (seen.host or seen.omega))
        node = sum(self._node) / len(self._node)
        if node >= OVERLOAD:
            factor, cause = DOWN, "the node is overloaded"
        elif throttled and node < COOLING:
            factor, cause = UP, "throttled, and the node is not busy"
        else:
            factor, cause = 1.0, "never below the limit it came with"
        target = round(max(seen.original, min(seen.limit * factor, CEILING * seen.original)))
        if target == seen.limit:
            return None
        return Wish(target, "koordinator", cause, {"node_use": node}, throttled and factor == UP)
