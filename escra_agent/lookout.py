"""Who may soon run out of quota is read every 10 or 20 ms, so that the period is not lost; nobody else is."""

import time
from collections.abc import Callable

from escra_agent.errors import CgroupGone
from escra_agent.foresight import NEAR_USEC, Foresight
from escra_agent.keeper import Keeper
from escra_agent.lending import Lender
from escra_agent.roster import Roster
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError

# Bursts come again: so long after the last one a container is still looked at.
WATCH_USEC = 5_000_000
# Who lent to others is looked at until its next period has begun, in case it needs it.
LENT_USEC = 200_000
# With many to look at the turns come further apart, so that their cost has a bound.
LEAST_S = NEAR_USEC / 1e6
PER_CONTAINER_S = 0.0005


class Lookout:
    """``waits`` is called when a limit was changed for the rest of a period: its end is to be looked for.

    ``lending``: who runs dry may have what others leave (lending.py).
    """

    def __init__(
        self, roster: Roster, keeper: Keeper, waits: Callable[[], None], *, lending: bool = False
    ) -> None:
        self._roster = roster
        self._keeper = keeper
        self._waits = waits
        self._lender = Lender(roster, keeper)
        self.lending = lending
        self._watched: dict[int, Foresight] = {}
        self._until_usec: dict[int, int] = {}

    @property
    def lent_usec(self) -> int:
        """So much went from container to container."""
        return self._lender.lent_usec

    def watch(self, brisk: list[Tracked]) -> bool:
        """These, for a while; whether there is anybody to look at."""
        for tracked in brisk:
            if tracked.plan.wanted is not None:
                self._watch(tracked, WATCH_USEC)
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
            waits = short and self._keeper.alarm(tracked, counters)
            lends = self.lending and foresight.dry
            lenders = self._lender.meet(tracked, counters, foresight.rate) if lends else []
            for lender in lenders:
                self._watch(lender, LENT_USEC)
            if waits or lenders:
                self._waits()
        except CgroupGone:
            self._keeper.gone.append(tracked)
            self._leave(tracked.key)
        except (EscraError, OSError, ValueError):
            self._leave(tracked.key)  # the tick speaks of it

    def _watch(self, tracked: Tracked, for_usec: int) -> None:
        self._watched.setdefault(tracked.key, Foresight())
        until_usec = tracked.last.time_usec + for_usec
        self._until_usec[tracked.key] = max(self._until_usec.get(tracked.key, 0), until_usec)

    def _leave(self, key: int) -> None:
        del self._watched[key], self._until_usec[key]
