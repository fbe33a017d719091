"""Absolute deadlines: tick n is due at start + n * period, whatever the ticks before it cost."""

import asyncio
import time

# A wake-up later than this share of the period counts as late.
TOLERANCE = 0.1


class Ticker:
    """``late`` counts ticks that started late, and those that were skipped altogether."""

    def __init__(self, period_s: float) -> None:
        self._period = period_s
        self._start = time.monotonic()
        self._n = 0
        self.late = 0

    @property
    def count(self) -> int:
        return self._n

    async def next(self) -> float:
        """Sleep until the next deadline; the monotonic time then."""
        self._n += 1
        deadline = self._start + self._n * self._period
        missed = int((time.monotonic() - deadline) / self._period)
        if missed > 0:
            # There is no point in running the missed ones in a row: levels lose nothing.
            self.late += missed
            self._n += missed
            deadline += missed * self._period
        await asyncio.sleep(max(0.0, deadline - time.monotonic()))
        now = time.monotonic()
        if now - deadline > TOLERANCE * self._period:
            self.late += 1
        return now
