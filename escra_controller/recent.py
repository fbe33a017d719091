"""Amounts of the last seconds: their sum, and the largest."""

# K3: a write hands out one fresh quota, whose effect on a window of use ends with the window.
REFILL_WINDOW_S = 1.0


class _Window:
    __slots__ = ("_amounts", "_window_s")

    def __init__(self, window_s: float = REFILL_WINDOW_S) -> None:
        self._window_s = window_s
        # (when, how much), oldest first.  A list: there are many of these, and most are short.
        self._amounts: list[tuple[float, int]] = []

    def _expired(self, now: float) -> int:
        """How many are from before the window; they are the first ones."""
        count, since = 0, now - self._window_s
        for at, _ in self._amounts:
            if at > since:
                break
            count += 1
        return count


class RecentSum(_Window):
    __slots__ = ("_total",)

    def __init__(self, window_s: float = REFILL_WINDOW_S) -> None:
        super().__init__(window_s)
        self._total = 0

    def add(self, amount: int, now: float) -> None:
        self.total(now)
        self._amounts.append((now, amount))
        self._total += amount

    def total(self, now: float) -> int:
        if self._amounts and (expired := self._expired(now)):
            self._total -= sum(amount for _, amount in self._amounts[:expired])
            del self._amounts[:expired]
        return self._total


class RecentPeak(_Window):
    """Keeps only what can still be the largest: falling amounts."""

    __slots__ = ()

    def add(self, amount: int, now: float) -> None:
        amounts = self._amounts
        while amounts and amounts[-1][1] <= amount:
            amounts.pop()
        amounts.append((now, amount))
        self.peak(now)

    def peak(self, now: float) -> int:
        """0 when nothing was added."""
        if self._amounts and (expired := self._expired(now)):
            del self._amounts[:expired]
        return self._amounts[0][1] if self._amounts else 0
