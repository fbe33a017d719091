"""openEuler Rubik's quotaTurbo: quotas above the own limit, paid for by what was not used before.

From openeuler-mirror/rubik, ``pkg/lib/cpu/quotaturbo/driverevent.go``, every 100 ms:

- throttled, and the node's use below 80 %: up by the time lost per throttled period, at most 1 % of the node;
- node's use at 60 % or more, and not throttled: down by up to a tenth of what is above the own limit;
- node's use at 80 % or more: what is over 80 % is taken from everybody;
- never below the own limit (the one it came with) nor above twice that, and above it only as far as the
  mean of the last 59 periods stays below it.

Each container decides alone, so the 1 % is its own and not that of all together, and what is over 80 % is
divided by limits.  The node's use is what the application's containers use there.  Left out: no raise for a
minute after the node's use moved by more than 10 %; on a host of a few processors that is always so, and
the rule would be no rule.  It knows no limit for an application: own limits must sum to less than Ω, the
pool refuses what is beyond, and cuts who is above a fair share when others need it.
"""

from escra_controller.policy.base import Restless, Seen, Settings, Wish

PERIOD_S = 0.1
HIGH, ALARM = 0.6, 0.8
ELEVATE = 0.01
SLOW_FALLBACK = 0.1
EASING = 2.0
CYCLES = 59
GRADUAL = 3.0


class RubikRule(Restless):
    def __init__(self, settings: Settings) -> None:
        pass

    def decide(self, seen: Seen, now: float) -> Wish | None:
        latest = seen.demand.latest
        if latest is None or not seen.sampled:
            return None
        node = seen.host or seen.omega
        use = seen.host_used() / node
        excess = max(0, seen.limit - seen.original)
        change = 0.0
        if use >= HIGH and not latest.throttled:
            change -= (use - HIGH) / (ALARM - HIGH) * SLOW_FALLBACK * excess
        if use >= ALARM:
            change -= min(excess, (use - ALARM) * node * seen.limit / max(1, seen.omega - seen.free))
        raising = bool(latest.throttled) and ALARM - use >= ELEVATE
        if raising:
            lost = latest.lost_usec / max(1, latest.events) / 1e6 / PERIOD_S * 1000
            change += min(lost, ELEVATE * node)
        target = round(max(seen.original, min(seen.limit + change, self._most(seen, now))))
        if target == seen.limit:
            return None
        cause = "throttled" if raising else "the node is busy, or its own limit is used up on average"
        return Wish(target, "rubik", cause, {"node_use": use}, throttled=raising)

    def _most(self, seen: Seen, now: float) -> float:
        """What the use of the last periods leaves: ``EASING`` at first, the own limit when it is used up."""
        own, height = seen.original, EASING * seen.original
        window = seen.demand.window(now - CYCLES * PERIOD_S)
        if window is None:
            return height
        remaining = (own * CYCLES / (CYCLES - 1) - window.mean_used) * (CYCLES - 1)
        if remaining <= GRADUAL * height:
            remaining = own + (height - own) * remaining / (GRADUAL * height)
        return max(own, min(remaining, height))
