"""Who is to be looked at when: so that time passing costs what is due, and not a look at everybody."""

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

NEVER = float("inf")


class Due(Generic[K]):
    """A key has one time, the last that was ``put``; ``NEVER`` takes it off.  Putting off costs nothing."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        # Of each key the earliest entry that counts; others of it are left overs.
        self._queued: dict[K, float] = {}
        self._heap: list[tuple[float, Any]] = []

    def __contains__(self, key: K) -> bool:
        return self._at.get(key, NEVER) < NEVER

    def put(self, key: K, at: float) -> None:
        self._at[key] = at
        if at < self._queued.get(key, NEVER):
            self._queued[key] = at
            heappush(self._heap, (at, key))

    def take(self, now: float, most: int) -> list[K]:
        """Those whose time has come, in its order; those beyond ``most`` are left for the next time."""
        taken: list[K] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(taken) < most:
            queued, key = heappop(heap)
            if self._queued.get(key) != queued:
                continue
            del self._queued[key]
            at = self._at[key]
            if at <= now:
                taken.append(key)
                del self._at[key]
            elif at < NEVER:
                self.put(key, at)
            else:
                del self._at[key]
        return taken
