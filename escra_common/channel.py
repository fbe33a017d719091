"""A session on a socket: the only code that awaits the wire."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from escra_common.errors import WireError
from escra_common.messages import Bye, Heartbeat, Message
from escra_common.session import Session
from escra_common.tls import reason

T = TypeVar("T")

READ_BYTES = 1 << 14
# So long the messages of one peer are worked on before others have their turn.
TURN_S = 0.001
# A peer that lets this much pile up does not keep up, and everything here is a level that
# will be said again: better to cut it off than to hold its backlog.
MAX_BACKLOG_BYTES = 4 << 20
# So long after it is due a heartbeat is sent, or the peer's silence noticed, at the latest.
CHECK_S = 0.25


class Channel:
    """Owns the streams; ``close()`` may be called at any time and more than once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session) -> None:
        self.session = session
        self._reader = reader
        self._writer = writer
        # What is written leaves at once, not at the end of the loop's round: somebody may be waiting for it.
        writer.transport.set_write_buffer_limits(high=0)
        # The transport's answer may be gone with the connection when a log line wants it.
        peer = writer.get_extra_info("peername")
        self.peer_address = str(peer or "unix")
        self.peer_host = str(peer[0]) if peer else "unix"
        self._write(session.greeting(time.monotonic()))

    def peer_certificate(self) -> dict[str, object] | None:
        found: dict[str, object] | None = self._writer.get_extra_info("peercert")
        return found

    @property
    def backlog_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Queue a message; raises WireError when the peer has stopped reading."""
        if self.backlog_bytes > MAX_BACKLOG_BYTES:
            raise WireError(f"{self.backlog_bytes} bytes wait for a peer that does not read")
        self._write(self.session.send(message, time.monotonic()))

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Everything the peer says, until it closes; raises WireError when it breaks the protocol."""
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError as error:
                raise WireError(f"connection lost: {reason(error)}") from error
            if not data:
                return
            # While there is more to read than this, reading does not wait: one who talks without end
            # would be the only one who is heard.
            began = time.monotonic()
            for message in self.session.receive(data, began):
                yield message
                if time.monotonic() - began > TURN_S:
                    await asyncio.sleep(0)
                    began = time.monotonic()
            if len(data) == READ_BYTES:
                await asyncio.sleep(0)

    async def keep_alive(self, totals: "Heartbeats") -> None:
        """Say a heartbeat when nothing else was said; raises WireError when the peer is silent."""
        while True:
            # A thousand peers are not to be looked at four times a second each.
            await asyncio.sleep(max(0.0, self.session.quiet_s(time.monotonic())) + CHECK_S)
            now = time.monotonic()
            self.session.check_alive(now)
            if self.session.peer is not None and self.session.heartbeat_due(now):
                self.send(totals())

    def close(self, reason: str = "", *, retry: bool = True) -> None:
        """Close, saying why if there is a reason."""
        if reason:
            with contextlib.suppress(WireError, RuntimeError):
                self.send(Bye(reason[:1000], retry))
        self._writer.close()

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)


class Heartbeats:
    """What a heartbeat says; a daemon with totals overrides ``__call__``."""

    def __call__(self) -> Heartbeat:
        return Heartbeat()


async def converse(main: Coroutine[Any, Any, T], *beside: Coroutine[Any, Any, None]) -> T:
    """What ``main`` returns, with others beside it until then; the first error of any of them is raised.

    Not a TaskGroup: that cancels the task it is in when a child fails, and in Python 3.11 such a cancellation
    can outlive it and end whoever goes on after the error, or swallow one that was meant.
    """
    talk = asyncio.create_task(main)
    tasks: list[asyncio.Task[Any]] = [talk, *(asyncio.create_task(each) for each in beside)]
    try:
        while not talk.done():
            await asyncio.wait(
                [task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
            for task in tasks:
                if task.done():
                    task.result()
        return talk.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
