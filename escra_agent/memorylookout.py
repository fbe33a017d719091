"""Whose use climbs towards its limit is looked at every 10 ms, so that it is met before; nobody else is."""

import asyncio
from collections.abc import Callable

from escra_agent.lookout import PER_CONTAINER_S
from escra_agent.tracked import Tracked

LOOK_S = 0.01


class MemoryLookout:
    """``look`` is called once for each ``watch``, in the running loop."""

    def __init__(self, look: Callable[[Tracked], None]) -> None:
        self._look = look
        self._watched: dict[int, Tracked] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, tracked: Tracked) -> None:
        self._watched[tracked.key] = tracked
        if self._timer is None:
            wait_s = max(LOOK_S, PER_CONTAINER_S * len(self._watched))
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._turn)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        watched, self._watched, self._timer = self._watched, {}, None
        for tracked in watched.values():
            self._look(tracked)
