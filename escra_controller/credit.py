"""What agents may add to limits by themselves, so that help need not travel to the controller and back.

A limit L with credit H counts as L + H from the moment the order leaves until an order without it was
acknowledged: the ledger's rule for limits, so Ω holds whether the agent has drawn it or not.  Drawing
writes the quota inside a period, which hands out a fresh one (K3): that refill is counted beforehand, too.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

# Less than this, and than this share of the limit, is not worth the watching.
LEAST_MILLI = 20
LEAST_SHARE = 0.1
# A credit is changed, where nothing else is to be ordered, at most this often, and for this much of it.
EVERY_S = 0.5
WORTH_CHANGING = 0.25


class Credit(NamedTuple):
    """``milli`` can be drawn and taken back; ``refill`` (millicore-seconds) is what the write hands out."""

    milli: int
    refill: int


NONE = Credit(0, 0)


class Credits(Generic[K]):
    """Of one application, with their sums."""

    def __init__(self) -> None:
        self._given: dict[K, Credit] = {}
        self.refill = 0
        self.standing = 0

    def __getitem__(self, key: K) -> Credit:
        return self._given.get(key, NONE)

    def __iter__(self) -> Iterator[K]:
        return iter(self._given)

    def put(self, key: K, credit: Credit) -> None:
        before = self[key]
        self.refill += credit.refill - before.refill
        self.standing += (credit.milli > 0) - (before.milli > 0)
        if credit == NONE:
            self._given.pop(key, None)
        else:
            self._given[key] = credit

    def largest(self) -> list[tuple[K, int]]:
        """Those that can be taken back, in millicores, the largest first."""
        given = [(key, credit.milli) for key, credit in self._given.items() if credit.milli]
        return sorted(given, key=lambda item: -item[1])

    def lent(self) -> int:
        return sum(credit.milli for credit in self._given.values())


class Room(NamedTuple):
    """What bounds a limit with credit drawn, in millicores (``own``, ``pool``: with the refills in a window).

    ``own`` is the container's ceiling less the refills of the last second, ``own_peak`` its highest limit in
    it; ``pool`` is Ω less the refills, less what others are counted at, and ``pool_peak`` Ω less the refills,
    less the most that all were counted at.  ``share`` is what of the free pool it may have, ``ledger`` what
    it can be counted at.
    """

    own: float
    own_peak: int
    pool: float
    pool_peak: float
    share: float
    ledger: int


def credit_for(limit: int, swing: int, period_s: float, room: Room) -> int:
    """How much credit goes with ``limit``; the container lately used up to ``swing`` above it.

    A window of one second that ends after the draw holds at most the higher limit and its refill, one
    that began before it the highest limit until then and the refill.

    >>> credit_for(100, 400, 0.1, Room(1000, 100, 2000, 1900, 10_000, 2000))
    400
    >>> credit_for(100, 400, 0.1, Room(300, 100, 2000, 1900, 10_000, 2000))
    172
    """
    top = min(
        limit + swing,
        room.ledger,
        room.own / (1 + period_s),
        (room.own - max(room.own_peak, limit)) / period_s,
        room.pool / (1 + period_s),
        room.pool_peak / period_s,
        (room.share + limit) / (1 + period_s),
    )
    credit = int(top) - limit
    return credit if credit >= max(LEAST_MILLI, LEAST_SHARE * limit) else 0


def worth_changing(before: int, after: int) -> bool:
    """
    >>> worth_changing(100, 0), worth_changing(100, 110), worth_changing(0, 20)
    (True, False, True)
    """
    return before != after and (0 in (before, after) or abs(before - after) > WORTH_CHANGING * before)
