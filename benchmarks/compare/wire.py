"""Requests and answers on one connection, many at a time: the project's frames, of msgpack."""

import asyncio
import itertools
from collections.abc import Callable
from typing import cast

from escra_common.framing import Decoder, encode

# A call: the service, units of work, KiB to hold, and stages of calls side by side.
Tree = tuple[str, int, int, list[list["Tree"]]]
# A request is [number, deadline (time.monotonic), call], its answer [number, whether it was done in time].
Respond = Callable[[object], None]
Serve = Callable[[tuple[int, float, Tree], Respond], None]


class Served(asyncio.Protocol):
    """The side that answers: ``serve`` gets a request, and what to answer it with."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._decoder = Decoder()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        for body in self._decoder.feed(data):
            self._serve(body, self._respond)

    def _respond(self, answer: object) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(answer))


class Caller(asyncio.Protocol):
    """The side that asks.  Connects when it is first needed, and again after the other side was gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._transport: asyncio.WriteTransport | None = None
        self._connecting = asyncio.Lock()
        self._decoder = Decoder()

    async def call(self, deadline: float, tree: Tree) -> bool:
        """Whether it was done in time; nobody there is a no."""
        try:
            transport = self._transport or await self._connect()
        except OSError:
            return False
        number = next(self._numbers)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        transport.write(encode([number, deadline, tree]))
        return await answer

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> asyncio.WriteTransport:
        async with self._connecting:
            if self._transport is None:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self, "127.0.0.1", self._port)
            assert self._transport is not None
            return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._decoder = cast("asyncio.WriteTransport", transport), Decoder()

    def data_received(self, data: bytes) -> None:
        for number, done in self._decoder.feed(data):
            if (answer := self._waiting.pop(number, None)) is not None and not answer.done():
                answer.set_result(done)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(False)
        self._waiting.clear()
