"""How fast something grows, from readings at irregular times.  Pure."""

from collections import deque

# Readings closer together than this say more about the clock than about the growth.
LEAST_INTERVAL_S = 0.005
# A burst counts for so long, and less and less: programs that grew fast are likely to do it again.
REMEMBER_S = 1.0
MOST_INTERVALS = 32


class Growth:
    """Bytes per second: the fastest of the last intervals, fading to 0 within a second of quiet."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        # When, how fast, and what size it came to.
        self._rates: deque[tuple[float, float, int]] = deque(maxlen=MOST_INTERVALS)

    def saw(self, size: int, now: float) -> None:
        """``now`` in monotonic seconds."""
        if self._last is None:
            self._last = now, size
            return
        before, size_before = self._last
        if now - before < LEAST_INTERVAL_S:
            return
        self._last = now, size
        if size > size_before:
            self._rates.append((now, (size - size_before) / (now - before), size))
        while self._rates and now - self._rates[0][0] >= REMEMBER_S:
            self._rates.popleft()

    def over(self, now: float) -> bool:
        """Whether all growth that was seen is forgotten, whether or not anything was seen since."""
        return not self._rates or now - self._rates[-1][0] >= REMEMBER_S

    def rate(self, now: float) -> int:
        return self.rate_of(None, now)

    def rate_of(self, part: int | None, now: float) -> int:
        """The share in the growth that a part of the size, as large as ``part``, had at most."""
        if not self._rates:
            return 0
        fresh = (
            rate * (1 - (now - at) / REMEMBER_S) * (1 if part is None else min(1.0, part / size))
            for at, rate, size in self._rates
        )
        return max(0, int(max(fresh)))
