"""An answer that goes on: replies pushed to one client of the control socket until one of them has enough.

The controller never waits for a reader, and keeps nothing for it: the next reply is made when the one before
was taken.  A slow reader so loses what lies between, and one that takes nothing loses its connection.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any

# A reply, or one that is a frame already, because it goes to many.
Pushed = dict[str, Any] | bytes
Replies = AsyncGenerator[Pushed, None]


async def stream(
    replies: Replies, send: Callable[[Pushed], Awaitable[None]], hear: Callable[[], Awaitable[Any]]
) -> Any:
    """Send ``replies`` until they end, or the client says something else: that is returned, None at the end.

    What ``send`` and ``hear`` raise ends it.  No reply is cut in the middle.
    """
    hearing = asyncio.ensure_future(hear())
    making: asyncio.Future[Pushed | None] | None = None
    try:
        while True:
            making = asyncio.ensure_future(_next(replies))
            await asyncio.wait((making, hearing), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                return hearing.result()
            reply = making.result()
            if reply is None:
                return None
            await send(reply)
    finally:
        tasks = [task for task in (hearing, making) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await replies.aclose()


async def _next(replies: Replies) -> Pushed | None:
    return await anext(replies, None)


class Places:
    """So many clients who ask at once, and so many others who watch: neither keeps the other out."""

    def __init__(self, askers: int, watchers: int) -> None:
        self._askers = asyncio.Semaphore(askers)
        self._watchers = watchers

    async def take(self) -> "Place":
        """A place for somebody who asks, as soon as one is free."""
        await self._askers.acquire()
        return Place(self)

    def _watch(self) -> bool:
        if self._watchers == 0:
            return False
        self._watchers -= 1
        self._askers.release()
        return True

    def _leave(self, watches: bool) -> None:
        if watches:
            self._watchers += 1
        else:
            self._askers.release()


class Place:
    """One client's, until the block ends."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._watches = False

    def watch(self) -> bool:
        """Count as one who watches from now on; False when there are too many of them."""
        self._watches = self._watches or self._places._watch()
        return self._watches

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places._leave(self._watches)
