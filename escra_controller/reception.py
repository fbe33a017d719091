"""Where agents come in: accepts connections and brings them through TLS, before anybody listens to them.

Connections are accepted by hand, not by asyncio.start_server: so those that do not finish their
handshake are counted and bounded, a renewed certificate holds for the next one, and what fails
can be logged in our words and as seldom as we like.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from escra_common.seldom import Seldom
from escra_common.tls import Credentials, reason

# From accept to the end of the handshake.  An agent gives up after three seconds itself.
HANDSHAKE_S = 2.0
# A handshake costs about a millisecond of the controller's time.  So many of one address are worked
# on at once that it cannot keep the loop from its tick ...
SLOTS = 4
# ... and so many wait, which lets hosts behind one address come back together.
MAX_PER_ADDRESS = 64
MAX_PENDING = 1024
BACKLOG = 1024

Attend = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

log = structlog.get_logger()


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """One for each address of ``host``.  Raises OSError; nothing is then left open."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            opened.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
            opened[-1].setblocking(False)
    except OSError:
        for listener in opened:
            listener.close()
        raise
    return opened


class Reception:
    """Hands each connection to ``attend``, whose error would end the daemon.  No credentials: no TLS."""

    def __init__(
        self, listeners: list[socket.socket], attend: Attend, credentials: Credentials | None = None
    ) -> None:
        self._listeners = listeners
        self._attend = attend
        self._credentials = credentials
        self._pending: Counter[str] = Counter()
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._seldom = Seldom()

    async def run(self) -> None:
        """Until cancelled; closes the listening sockets."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for listener in self._listeners:
                    tasks.create_task(self._accept_all(listener, tasks))
        finally:
            for listener in self._listeners:
                listener.close()

    async def _accept_all(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the peer left again: not our end
                self._complain("nobody", f"cannot accept a connection: {error.strerror or error}")
                await asyncio.sleep(0.1)
                continue
            connection.setblocking(False)
            address = peer[0]
            if self._pending[address] >= MAX_PER_ADDRESS or self._pending.total() >= MAX_PENDING:
                connection.close()
                self._complain(address, "too many connections that have not finished their handshake")
                continue
            self._pending[address] += 1
            tasks.create_task(self._receive(connection, address))

    async def _receive(self, connection: socket.socket, address: str) -> None:
        streams = None
        try:
            streams = await self._shake_hands(connection, address)
        except TimeoutError:
            self._complain(address, f"no TLS handshake within {HANDSHAKE_S:g} s")
        except OSError as error:
            self._complain(address, reason(error))
        finally:
            if streams is None:
                connection.close()
        if streams is not None:
            await self._attend(*streams)

    async def _shake_hands(
        self, connection: socket.socket, address: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        slots = self._slots.setdefault(address, asyncio.Semaphore(SLOTS))
        try:
            async with asyncio.timeout(HANDSHAKE_S), slots:
                return await self._streams(connection)
        finally:
            self._pending[address] -= 1
            if not self._pending[address]:
                del self._pending[address], self._slots[address]

    async def _streams(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """What asyncio.open_connection does, for the other end."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        tls = self._credentials.context if self._credentials is not None else None
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _complain(self, address: str, why: str) -> None:
        if self._seldom.allows(address, time.monotonic()):
            log.warning("connection refused", kind="bad_peer", reason=why, address=address)
