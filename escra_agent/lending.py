"""Quota of a period that its container will not use, lent to another of the same application on this host.

Limits are what is in force for whole periods; within one, a container that runs dry waits while others leave
theirs unused.  What they will hardly use goes to it for the rest of the period: their quotas are written
first and say what is left to them, then its own.  Nobody's file ever says more than its limit, so nothing is
to be counted elsewhere; and at the end of the period each has its whole quota again.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter

from escra_agent.counters import Counters
from escra_agent.keeper import NEAR_CEILING, Keeper
from escra_agent.roster import Roster
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError

# Less is not worth two writes.
LEAST_USEC = 1_000
# A rate of use is not measured over less.
LEAST_SPAN_USEC = 2_000
MOST_LENDERS = 4
# So many are asked for each, in turns: what that costs has a bound.
MOST_ASKED = 16
# Where nobody had anything it is not asked for again so soon.
AGAIN_S = 0.008


class Lender:
    """``meet`` says who lent: they are to be looked at, for what they will not use is a guess."""

    def __init__(self, roster: Roster, keeper: Keeper) -> None:
        self._roster = roster
        self._keeper = keeper
        # By application: nobody had anything at that time.
        self._nothing: dict[str, float] = {}
        self._turn = 0
        self.lent_usec = 0

    def meet(self, tracked: Tracked, counters: Counters, rate: float) -> list[Tracked]:
        """Let others lend it what it lacks at ``rate`` (cores)."""
        now, app = time.monotonic(), tracked.candidate.labels.app
        if not tracked.ours or now - self._nothing.get(app, 0.0) < AGAIN_S:
            return []
        lacks = tracked.plan.lacks_usec(counters, rate, _most_usec(tracked, counters))
        if lacks < LEAST_USEC:
            return []
        lenders: list[Tracked] = []
        given = 0
        for spare, other, theirs in sorted(self._offers(tracked), key=itemgetter(0), reverse=True):
            usec = min(spare, lacks - given)
            if usec < LEAST_USEC or len(lenders) == MOST_LENDERS:
                break
            if self._move(other, theirs, -usec, now):
                given += usec
                lenders.append(other)
        if given:
            self._move(tracked, counters, given, now)
            self.lent_usec += given
        else:
            self._nothing[app] = now
        return lenders

    def _offers(self, tracked: Tracked) -> Iterator[tuple[int, Tracked, Counters]]:
        """Those who have something, what that is, and their last reading."""
        app = tracked.candidate.labels.app
        others = [
            other
            for other in self._roster.tracked.values()
            if other.plan.may_lend
            and other.candidate.labels.app == app
            and other.ours
            and other is not tracked
        ]
        if len(others) > MOST_ASKED:
            self._turn = (self._turn + MOST_ASKED) % len(others)
            others = (others + others)[self._turn : self._turn + MOST_ASKED]
        for other in others:
            with suppress(EscraError, OSError, ValueError):  # the tick speaks of it
                counters = other.cgroup.read(other.plan.wanted)
                spare = other.plan.spare_usec(counters, _rate(other.last, counters))
                if spare >= LEAST_USEC:
                    yield spare, other, counters

    def _move(self, tracked: Tracked, counters: Counters, usec: int, now: float) -> bool:
        limit = tracked.plan.move(usec, counters, now)
        if limit is None:
            return False
        try:
            self._keeper.write(tracked, limit)
        except EscraError:
            return False  # all of it is written at the end of the period, and spoken of then
        return True


def _rate(before: Counters, now: Counters) -> float:
    """Cores."""
    elapsed_usec = now.time_usec - before.time_usec
    return (now.usage_usec - before.usage_usec) / elapsed_usec if elapsed_usec > LEAST_SPAN_USEC else 0.0


def _most_usec(tracked: Tracked, counters: Counters) -> float:
    """What it may use in a period, others' included."""
    most = tracked.most_milli
    return float("inf") if most is None else NEAR_CEILING * most * counters.limit.period_usec / 1000
