"""What those who watch are sent: pictures of everything, each made once for all whose beats fall together."""

import asyncio
import math
import time
from collections.abc import Callable

from escra_controller.control import frame
from escra_controller.queries import Desk, Watch
from escra_controller.streaming import Replies

# A picture so young is as good as a new one: however many watch, this bounds how many are made.
FRESH_S = 0.1


class Pictures:
    """``desk`` gives the one in use: with the leadership it changes."""

    def __init__(self, desk: Callable[[], Desk]) -> None:
        self._desk = desk
        self._making = asyncio.Lock()
        self._made_at = float("-inf")
        self._picture = b""

    async def replies(self, watch: Watch) -> Replies:
        """A picture now and at each multiple of the interval on the clock, with what is to be explained."""
        beat = 0
        while True:
            yield await self._latest()
            if watch.explain is not None:
                now = time.monotonic()
                about = self._desk().explain(watch.explain, watch.host, watch.limit, now, time.time())
                yield {"ok": True, "data": {"explain": about}}
            now = time.monotonic()
            # Those that a slow reader missed have passed, and so has one that would bring the same picture.
            beat = max(beat, math.floor((now + FRESH_S) / watch.interval_s)) + 1
            await asyncio.sleep(beat * watch.interval_s - now)

    async def _latest(self) -> bytes:
        async with self._making:
            if time.monotonic() - self._made_at >= FRESH_S:
                steps = self._desk().picture(time.monotonic(), time.time())
                while True:
                    try:
                        next(steps)
                    except StopIteration as made:
                        self._picture = frame({"ok": True, "data": made.value})
                        self._made_at = time.monotonic()
                        break
                    await asyncio.sleep(0)
            return self._picture
