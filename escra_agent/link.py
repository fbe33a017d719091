"""The connection to the controller: kept up for ever, and never in the way of the tick."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from escra_agent.config import AgentConfig
from escra_common.channel import Channel, Heartbeats
from escra_common.errors import WireError
from escra_common.expiry import Expiry
from escra_common.messages import (
    Bye,
    Container,
    DenyMemory,
    Hello,
    Message,
    Release,
    Samples,
    SetLimits,
    SetMemory,
    Snapshot,
)
from escra_common.session import Session
from escra_common.tls import Credentials, peer_expiry, reason

log = structlog.get_logger()

CONNECT_S = 3.0
FIRST_DELAY_S, LAST_DELAY_S = 0.1, 5.0
# One that cannot succeed (no common version) is tried again all the same: somebody may
# upgrade the other side; but slowly.
HOPELESS_DELAY_S = 60.0
# More unsent bytes than this and samples are left out: they are levels, the next says it all.
SAMPLES_BACKLOG_BYTES = 1 << 20
SNAPSHOT_ITEMS = 500

Order = SetLimits | SetMemory | DenyMemory | Release


class Link:
    """``snapshot`` is called once per connection, before anything else is sent on it.

    ``turned`` hears when the controller is there (true) and when it is lost.
    """

    def __init__(
        self,
        config: AgentConfig,
        greeting: Hello,
        totals: Heartbeats,
        snapshot: Callable[[], Iterable[Container]],
        obey: Callable[[Order], Awaitable[None]],
        turned: Callable[[bool], None],
        credentials: Credentials | None = None,
    ) -> None:
        self._address = config.controller
        self._credentials = credentials
        self._greeting = greeting
        self._totals = totals
        self._snapshot = snapshot
        self._obey = obey
        self._turned = turned
        self._channel: Channel | None = None
        self.dropped_samples = 0

    @property
    def up(self) -> bool:
        return self._channel is not None

    def certificates(self) -> list[Expiry]:
        """When the certificate of the controller ends, while there is one."""
        if self._channel is None:
            return []
        return peer_expiry(f"the certificate of controller {self._address}", self._channel.peer_certificate())

    def send(self, message: Message) -> None:
        """Say it if somebody listens; the snapshot of the next connection makes up for the rest."""
        channel = self._channel
        if channel is None:
            return
        if isinstance(message, Samples) and channel.backlog_bytes > SAMPLES_BACKLOG_BYTES:
            self.dropped_samples += len(message.samples)
            return
        try:
            channel.send(message)
        except WireError:
            # Its reader finds out and says so; here the tick goes on.
            self._lose()
            channel.close()

    async def run(self) -> None:
        """Connect, serve, and connect again, until cancelled."""
        delay, said = FIRST_DELAY_S, ""
        while True:
            started = time.monotonic()
            reason, retry = await self._serve_once()
            if time.monotonic() - started > LAST_DELAY_S:
                delay = FIRST_DELAY_S
            if reason != said:
                log.warning("no controller", reason=f"{self._address}: {reason}; limits stay as they are")
                said = reason
            await asyncio.sleep((delay if retry else HOPELESS_DELAY_S) * random.uniform(0.5, 1.0))
            delay = min(2 * delay, LAST_DELAY_S)

    async def _serve_once(self) -> tuple[str, bool]:
        """Why it ended, and whether another try may help."""
        tls = self._credentials.context if self._credentials is not None else None
        try:
            async with asyncio.timeout(CONNECT_S):
                # Also checks that the certificate is for this name or address, and for a server.
                reader, writer = await asyncio.open_connection(
                    self._address.host, self._address.port, ssl=tls
                )
        except TimeoutError:
            return f"no answer within {CONNECT_S:.0f} s", True
        except OSError as error:
            return reason(error), True
        channel = Channel(reader, writer, Session(self._greeting, time.monotonic()))
        try:
            return await self._converse(channel)
        finally:
            self._lose()
            channel.close()

    async def _converse(self, channel: Channel) -> tuple[str, bool]:
        ended: tuple[str, bool] = ("the controller closed the connection", True)
        try:
            async with asyncio.TaskGroup() as tasks:
                alive = tasks.create_task(channel.keep_alive(self._totals))
                async for message in channel.messages():
                    if isinstance(message, Bye):
                        ended = message.reason, message.retry
                        break
                    await self._take(channel, message)
                alive.cancel()
        except* WireError as group:
            error = group.exceptions[0]
            assert isinstance(error, WireError)
            ended = str(error), error.retry
            channel.close(str(error))
        if channel.session.peer is None and self._credentials is not None:
            # A server refuses a certificate after its own part of the handshake is over.
            ended = f"{ended[0]} before its HELLO; does it refuse our certificate? Its journal says", ended[1]
        return ended

    async def _take(self, channel: Channel, message: Message) -> None:
        match message:
            case Hello():
                self._introduce(channel)
                log.info("controller found", host=message.host, software=message.software)
            case SetLimits() | SetMemory() | DenyMemory() | Release():
                await self._obey(message)
            case _:
                pass

    def _introduce(self, channel: Channel) -> None:
        containers = list(self._snapshot())
        for start in range(0, max(1, len(containers)), SNAPSHOT_ITEMS):
            part = containers[start : start + SNAPSHOT_ITEMS]
            channel.send(Snapshot(part, last=start + SNAPSHOT_ITEMS >= len(containers)))
        self._channel = channel
        self._turned(True)

    def _lose(self) -> None:
        if self._channel is not None:
            self._channel = None
            self._turned(False)

    def close(self) -> None:
        if self._channel is not None:
            with contextlib.suppress(WireError):
                self._channel.close("the agent is stopping")
