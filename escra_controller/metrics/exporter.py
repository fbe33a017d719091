"""Answers Prometheus: one page over plain HTTP, to a bounded number of bounded clients.

Who reads slowly, says nothing or says nonsense costs one connection and some seconds of waiting, and when
there are too many the oldest gives way.  Nothing here is worth stopping the controller for: where the address
is taken, that is said, and tried again.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable

import structlog

from escra_common.configfile import AddressOrOff
from escra_controller.metrics.page import CONTENT_TYPE
from escra_controller.reception import listening_sockets

PATH = b"/metrics"
MAX_CLIENTS = 32
MAX_REQUEST_BYTES = 16 << 10
# How long a client may take to ask, and to take its answer.
PATIENCE_S = 5.0
AGAIN_S = 5.0

_STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}

log = structlog.get_logger()


class Exporter:
    """``problem`` says why nobody can read the page, "" while somebody can, or nobody is meant to."""

    def __init__(self, address: AddressOrOff, page: Callable[[], Awaitable[bytes]]) -> None:
        self._address = address
        self._page = page
        # In the order of their coming.
        self._clients: dict[asyncio.StreamWriter, None] = {}
        self.problem = ""

    async def run(self) -> None:
        """Until cancelled; ends at once when metrics are off."""
        if not self._address:
            return
        listeners = await self._listen()
        async with contextlib.AsyncExitStack() as stack:
            for listener in listeners:
                server = await asyncio.start_server(self._serve, sock=listener, limit=MAX_REQUEST_BYTES)
                stack.callback(server.close)
            stack.callback(self._part_with_all)
            await asyncio.get_running_loop().create_future()

    async def _listen(self) -> list[socket.socket]:
        while True:
            try:
                listeners = listening_sockets(self._address.host, self._address.port)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                why = "another program listens there" if taken else error.strerror
                if not self.problem:
                    self.problem = (
                        f"metrics: cannot listen on {self._address}: {why}; give [listen] metrics another "
                        'address, or "" for none'
                    )
                    log.error("metrics are not served", kind="metrics_refused", reason=self.problem)
                await asyncio.sleep(AGAIN_S)
            else:
                self.problem = ""
                return listeners

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            next(iter(self._clients)).transport.abort()
        self._clients[writer] = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                request = await reader.readuntil(b"\r\n\r\n")
            reply = await self._reply(request)
            # Done means: the kernel has all of it.
            writer.transport.set_write_buffer_limits(0)
            writer.write(reply)
            async with asyncio.timeout(PATIENCE_S):
                await writer.drain()
        # Gone, silent, slow, or no end of its request.
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._clients.pop(writer, None)
            writer.close()

    async def _reply(self, request: bytes) -> bytes:
        method, target = (*request.split(b"\r\n", 1)[0].split(b" "), b"", b"")[:2]
        if method not in (b"GET", b"HEAD"):
            answer = _answer(405 if target.startswith(b"/") else 400, b"GET /metrics is all there is\n")
        elif target.partition(b"?")[0] != PATH:
            answer = _answer(404, b"the page is at /metrics\n")
        else:
            answer = _answer(200, await self._page(), CONTENT_TYPE)
        return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else answer

    def _part_with_all(self) -> None:
        for writer in list(self._clients):
            writer.transport.abort()


def _answer(status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
