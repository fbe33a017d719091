"""Calls over HTTP: [deadline (time.monotonic), tree] is posted to /SERVICE, and 200 says: done in time.

Containers share the clock of their host.
"""

import time
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from benchmarks.compare.wire import Tree

PORT = 8000


class HttpCaller:
    """Connects as often as there are calls under way, and keeps connections.  Made in its event loop."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def ask(self, address: str, deadline: float, tree: "Tree") -> tuple[str, bytes] | None:
        """Content type and body; None when it was not done in time, or nobody is there."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        timeout = aiohttp.ClientTimeout(total=left_s)
        try:
            async with self._session.post(
                f"http://{address}/{tree[0]}", json=[deadline, tree], timeout=timeout
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return None
        return (answer.content_type, body) if answer.status == 200 else None

    async def close(self) -> None:
        await self._session.close()


class Front:
    """An application behind nginx, which passes on to the service that is named: the one call of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._caller = HttpCaller()

    async def ask(self, deadline: float, tree: "Tree") -> tuple[str, bytes] | None:
        ((inner,),) = tree[3]
        return await self._caller.ask(self._address, deadline, inner)

    async def call(self, deadline: float, tree: "Tree") -> bool:
        return await self.ask(deadline, tree) is not None

    async def close(self) -> None:
        await self._caller.close()
