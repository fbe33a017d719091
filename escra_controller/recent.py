"""Amounts of the last seconds: their sum, and the largest."""

from collections import deque

# K3: a write hands out one fresh quota, whose effect on a window of use ends with the window.
REFILL_WINDOW_S = 1.0


class Recent:
    def __init__(self, window_s: float = REFILL_WINDOW_S) -> None:
        self._window_s = window_s
        self._amounts: deque[tuple[float, int]] = deque()

    def add(self, amount: int, now: float) -> None:
        self._amounts.append((now, amount))
        self._forget(now)

    def total(self, now: float) -> int:
        self._forget(now)
        return sum(amount for _, amount in self._amounts)

    def peak(self, now: float) -> int:
        """0 when nothing was added."""
        self._forget(now)
        return max((amount for _, amount in self._amounts), default=0)

    def _forget(self, now: float) -> None:
        while self._amounts and self._amounts[0][0] <= now - self._window_s:
            self._amounts.popleft()
