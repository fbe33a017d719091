"""The control socket: answers the CLI, and never waits for it.

Whoever can open the socket may change limits, so its mode (0660, group escra) is the access
control.  A client that is slow, silent or wrong costs one connection and bounded time.
"""

import asyncio
import contextlib
import grp
import os
import socket
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from escra_common.errors import ConfigError, WireError
from escra_common.framing import Decoder, encode
from escra_controller.client import FAILED, MAX_REPLY_BYTES, MAX_REQUEST_BYTES
from escra_controller.streaming import Place, Places, Pushed, Replies, stream

# Flat, as all queries are: nothing large can be made of it.
Request = dict[str, str | int | float | None]
Reply = dict[str, Any]
Answer = Callable[[dict[str, Any]], Reply | Awaitable[Reply] | Replies]

# How long a client may take to finish a request, and to take its answer.
PATIENCE_S = 5.0
# Further clients wait in the kernel's backlog.
MAX_CONNECTIONS = 32
# Those who watch do not count among them; further ones are told so.
MAX_STREAMS = 64

log = structlog.get_logger()


class ControlError(ConfigError):
    """The control socket cannot be opened."""


@contextlib.contextmanager
def control_socket(path: Path, group: str = "escra") -> Iterator[socket.socket]:
    """A listening socket at ``path``, removed at the end.

    A socket nobody listens on is replaced; one that is alive raises ControlError, as does all
    else that keeps the socket from being opened.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        try:
            _refuse_if_taken(path)
            inode = _bind(listener, path, group)
        except OSError as error:
            raise ControlError(f"cannot open the control socket {path}: {error.strerror or error}") from error
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()


async def serve(listener: socket.socket, answer: Answer) -> None:
    """Answer the clients of ``listener`` until cancelled.

    ``answer`` takes a request and returns the whole reply, what can be awaited for it, or the replies of an
    answer that goes on until the client asks something else or leaves; it must not block.
    """
    loop = asyncio.get_running_loop()
    places = Places(MAX_CONNECTIONS, MAX_STREAMS)

    async def attend(connection: socket.socket, place: Place) -> None:
        with place, connection:
            await _converse(_Client(loop, connection), answer, place)

    async with asyncio.TaskGroup() as clients:
        while True:
            place = await places.take()
            clients.create_task(attend(await _accept(loop, listener), place))


async def _accept(loop: asyncio.AbstractEventLoop, listener: socket.socket) -> socket.socket:
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError as error:  # out of descriptors, or the client left again: not our end
            log.warning("cannot accept a control connection", error=str(error))
            await asyncio.sleep(0.1)
        else:
            connection.setblocking(False)
            return connection


async def _converse(client: "_Client", answer: Answer, place: Place) -> None:
    # A client that goes away or stays silent has had its answer, or does not want it.
    with contextlib.suppress(OSError, TimeoutError):
        try:
            request = await client.next_request()
            while request is not None:
                request = await _attend(client, request, answer, place)
        except WireError as error:
            await client.send(_refusal(f'{error}; a request is a flat map with an "op"'))


async def _attend(client: "_Client", request: dict[str, Any], answer: Answer, place: Place) -> Any:
    """Answer one request; the next one, None when the client has had enough."""
    if not isinstance(request.get("op"), str):
        await client.send(_refusal('a request has an "op"'))
        return None
    reply = answer(request)
    if isinstance(reply, AsyncGenerator):
        if place.watch():
            return await stream(reply, client.send, client.receive)
        await reply.aclose()
        reply = _refusal(f"{MAX_STREAMS} others watch already; end one of them first")
    await client.send(await reply if isinstance(reply, Awaitable) else reply)
    # Many requests sent at once must not keep the control loop from its tick.
    await asyncio.sleep(0)
    return await client.next_request()


class _Client:
    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        self._loop = loop
        self._connection = connection
        self._decoder = Decoder(MAX_REQUEST_BYTES, Request)
        self._waiting: deque[Any] = deque()

    async def next_request(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await self.receive()

    async def receive(self) -> Any:
        """The next request, however long it takes; None when the client has left."""
        while not self._waiting:
            data = await self._loop.sock_recv(self._connection, MAX_REQUEST_BYTES)
            if not data:
                return None
            self._waiting.extend(self._decoder.feed(data))
        return self._waiting.popleft()

    async def send(self, reply: Pushed) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._loop.sock_sendall(self._connection, frame(reply))


def frame(reply: Pushed) -> bytes:
    """A reply's bytes; one that is too long becomes a refusal."""
    if isinstance(reply, bytes):
        return reply
    try:
        return encode(reply, MAX_REPLY_BYTES)
    except WireError as error:
        return encode(_refusal(str(error)))


def _refusal(reason: str) -> dict[str, Any]:
    return {"ok": False, "error": reason, "code": FAILED}


def _refuse_if_taken(path: Path) -> None:
    if path.exists() and not path.is_socket():
        raise ControlError(f"cannot open the control socket {path}: a file that is no socket is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
    raise ControlError(f"another controller is listening on {path}; stop it, or set another [listen] control")


def _bind(listener: socket.socket, path: Path, group: str) -> int:
    """Bind under another name and move into place: who can see the path can connect to it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(fresh))
    finally:
        os.umask(before)
    try:
        _give_to(group, fresh)
        fresh.chmod(0o660)
        listener.listen(MAX_CONNECTIONS)
        inode = fresh.stat().st_ino
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return inode


def _give_to(group: str, path: Path) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.info("no such group: only this user can use the control socket", group=group, path=str(path))
    except PermissionError:
        log.warning("cannot give the control socket to the group", group=group, path=str(path))
