"""Who may soon run out of quota is read every 10 or 20 ms, so that the period is not lost; nobody else is."""

import time
from collections.abc import Callable

from escra_agent.errors import CgroupGone
from escra_agent.foresight import NEAR_USEC, Foresight
from escra_agent.keeper import Keeper
from escra_agent.roster import Roster
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError

# Bursts come again: so long after the last one a container is still looked at.
WATCH_USEC = 5_000_000
# With many to look at the turns come further apart, so that their cost has a bound.
LEAST_S = NEAR_USEC / 1e6
PER_CONTAINER_S = 0.0005


class Lookout:
    """``waits`` is called when a limit was raised for the rest of a period: its end is to be looked for."""

    def __init__(self, roster: Roster, keeper: Keeper, waits: Callable[[], None]) -> None:
        self._roster = roster
        self._keeper = keeper
        self._waits = waits
        self._watched: dict[int, Foresight] = {}
        self._until_usec: dict[int, int] = {}

    def watch(self, brisk: list[Tracked]) -> bool:
        """These, for a while; whether there is anybody to look at."""
        for tracked in brisk:
            if tracked.plan.wanted is not None:
                self._watched.setdefault(tracked.key, Foresight())
                self._until_usec[tracked.key] = tracked.last.time_usec + WATCH_USEC
        return bool(self._watched)

    def look(self) -> float | None:
        """Read who is due, raise alarms; seconds to the next turn, None when nobody is left."""
        now_usec = time.monotonic_ns() // 1000
        for key, foresight in list(self._watched.items()):
            tracked = self._roster.tracked.get(key)
            if tracked is None or now_usec > self._until_usec[key] or tracked.plan.wanted is None:
                self._leave(key)
            elif foresight.due_usec <= now_usec + NEAR_USEC // 2:
                self._look_at(tracked, foresight)
        if not self._watched:
            return None
        next_usec = min(foresight.due_usec for foresight in self._watched.values())
        return max(LEAST_S, (next_usec - now_usec) / 1e6, PER_CONTAINER_S * len(self._watched))

    def _look_at(self, tracked: Tracked, foresight: Foresight) -> None:
        try:
            counters = tracked.cgroup.read(tracked.plan.wanted)
            tracked.plan.saw(counters)
            stood_for = counters._replace(limit=tracked.plan.stands_for or counters.limit)
            short = foresight.look(stood_for, tracked.plan.period(counters))
            if short and self._keeper.alarm(tracked, counters):
                self._waits()
        except CgroupGone:
            self._keeper.gone.append(tracked)
            self._leave(tracked.key)
        except (EscraError, OSError, ValueError):
            self._leave(tracked.key)  # the tick speaks of it

    def _leave(self, key: int) -> None:
        del self._watched[key], self._until_usec[key]
