"""Where agents come in: accepts connections and brings them through TLS, before anybody listens to them.

Connections are accepted by hand, not by asyncio.start_server: so those of nobody known are counted
and bounded, a renewed certificate holds for the next one, and what fails can be logged in our words and as
seldom as we like.
"""

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn
from weakref import WeakValueDictionary

import structlog

from escra_common.seldom import Seldom
from escra_common.tls import Credentials, reason
from escra_controller.strangers import Strangers
from escra_controller.turns import Turns

# From accept to the end of the handshake.  An agent gives up after three seconds itself.
HANDSHAKE_S = 2.0
# So many of one address are worked on at once.
SLOTS = 4
BACKLOG = 1024
# So many are accepted in a row before the loop does something else.
AT_ONCE = 16

# The last argument is to be called when the peer has shown for whom it speaks.
Attend = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Callable[[], None]], Awaitable[None]]

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


@dataclass(slots=True)
class Guest:
    """A connection; it has a writer once it is through the handshake."""

    connection: socket.socket
    address: str
    joined: bool = False
    task: asyncio.Task[None] | None = None
    writer: asyncio.StreamWriter | None = None

    def leave(self) -> None:
        """Others need the room."""
        if self.writer is not None:
            self.writer.close()
        elif self.task is not None:
            self.task.cancel()


class Reception:
    """Hands each connection to ``attend``, whose error would end the daemon.  No credentials: no TLS."""

    def __init__(
        self, listeners: list[socket.socket], attend: Attend, credentials: Credentials | None = None
    ) -> None:
        self._listeners = listeners
        self._attend = attend
        self._credentials = credentials
        self._strangers = Strangers()
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._seldom = Seldom()
        self._turns = Turns()

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
        accepted = 0
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the peer left again: not our end
                self._complain("nobody", f"cannot accept a connection: {error.strerror or error}")
                await asyncio.sleep(0.1)
                continue
            connection.setblocking(False)
            guest = Guest(connection, peer[0])
            number = self._strangers.admit(guest.address, guest.leave)
            if number is None:
                connection.close()
                self._complain(guest.address, "too many connections that have not said who they are")
            else:
                guest.task = tasks.create_task(self._receive(guest, partial(self._known, guest, number)))
                guest.task.add_done_callback(partial(self._gone, guest, number))
            accepted += 1
            if accepted % AT_ONCE == 0:  # nothing above waits while others knock
                await asyncio.sleep(0)

    async def _receive(self, guest: Guest, known: Callable[[], None]) -> None:
        try:
            reader, guest.writer = await self._shake_hands(guest)
        except TimeoutError:
            self._complain(guest.address, f"no TLS handshake within {HANDSHAKE_S:g} s")
        except OSError as error:
            self._complain(guest.address, reason(error))
        else:
            await self._attend(reader, guest.writer, known)

    async def _shake_hands(self, guest: Guest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        slots = self._slots.setdefault(guest.address, asyncio.Semaphore(SLOTS))
        # Those who came together and say nothing shall not all be parted with at the same moment.
        async with asyncio.timeout(HANDSHAKE_S * random.uniform(0.75, 1.0)), slots:
            if self._credentials is not None:
                await asyncio.sleep(self._turns.wait_s(guest.address, time.monotonic()))
            return await self._streams(guest.connection)

    def _known(self, guest: Guest, number: int) -> None:
        guest.joined = True
        self._strangers.release(number)
        self._turns.joined(guest.address)

    def _gone(self, guest: Guest, number: int, _: "asyncio.Task[None]") -> None:
        """Also of a task that was cancelled before it began."""
        self._strangers.release(number)
        if not guest.joined:
            self._turns.wasted(guest.address)
        if guest.writer is None:
            guest.connection.close()

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
