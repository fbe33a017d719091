"""Containers with credit, read every 10 or 20 ms so that it is drawn before a period is lost; nobody else."""

import time

from escra_agent.errors import CgroupGone
from escra_agent.foresight import NEAR_USEC, Foresight
from escra_agent.keeper import Keeper
from escra_agent.roster import Roster
from escra_common.errors import EscraError
from escra_common.messages import SetLimits

# With many to watch the turns come further apart: their cost has a bound, about a twentieth of a processor.
LEAST_S = NEAR_USEC / 1e6
PER_CONTAINER_S = 0.0005


class CreditWatch:
    def __init__(self, roster: Roster, keeper: Keeper) -> None:
        self._roster = roster
        self._keeper = keeper
        self._watched: dict[int, Foresight] = {}

    def ordered(self, orders: SetLimits) -> bool:
        """New orders were obeyed; whether somebody is to be watched."""
        for order in orders.orders:
            if order.credit_milli:
                self._watched.setdefault(order.key, Foresight())
        return bool(self._watched)

    def look(self) -> float | None:
        """Read who is due, draw what is needed; seconds until the next turn, None while nobody has credit."""
        soon_usec = time.monotonic_ns() // 1000 + NEAR_USEC // 2
        for key, foresight in list(self._watched.items()):
            tracked = self._roster.tracked.get(key)
            if tracked is None or not (tracked.plan.credit or tracked.plan.promised):
                del self._watched[key]
            elif foresight.due_usec <= soon_usec:
                try:
                    if foresight.look(tracked.cgroup.read(tracked.plan.wanted)):
                        self._keeper.draw(tracked)
                except CgroupGone:
                    self._keeper.gone.append(tracked)
                    del self._watched[key]
                except (EscraError, OSError, ValueError):
                    del self._watched[key]  # the tick speaks of it
        if not self._watched:
            return None
        next_usec = min(foresight.due_usec for foresight in self._watched.values())
        wait_s = (next_usec - time.monotonic_ns() // 1000) / 1e6
        return max(LEAST_S, wait_s, PER_CONTAINER_S * len(self._watched))
