"""The connection to the controller that leads: kept up for ever, and never in the way of the tick."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from escra_agent.dialing import Dialer, TakenOver, Unreachable
from escra_agent.standing import StandingError, StandingFile
from escra_common.channel import Channel, Heartbeats, converse
from escra_common.configfile import Address
from escra_common.errors import WireError
from escra_common.expiry import Expiry
from escra_common.messages import (
    Bye,
    Container,
    DenyMemory,
    Heartbeat,
    Hello,
    Message,
    Release,
    Samples,
    SetLimits,
    SetMemory,
    Snapshot,
    Terms,
)
from escra_common.tls import peer_expiry

log = structlog.get_logger()

FIRST_DELAY_S, LAST_DELAY_S = 0.1, 5.0
# A controller that was there for so long is not one that is found wanting again and again.
GOOD_S = 1.0
# While nobody answers at all, which costs nobody anything: after a partition all is well within two seconds,
# and until the next packet is tried one may go by (dialing.REACH_S).
UNREACHABLE_DELAY_S = 0.2
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
        standing: StandingFile,
        dialer: Dialer,
        totals: Heartbeats,
        snapshot: Callable[[], Iterable[Container]],
        obey: Callable[[Order], Awaitable[None]],
        turned: Callable[[bool], None],
    ) -> None:
        self._standing = standing
        self._dialer = dialer
        self._totals = totals
        self._snapshot = snapshot
        self._obey = obey
        self._turned = turned
        self._channel: Channel | None = None
        # Since when there is a controller, and for how long the last one was there.
        self._found_at = self._lasted_s = 0.0
        self.dropped_samples = 0
        # The serial of the terms that the present controller gave; 0 is none yet.
        self.terms = 0
        # How many hosts it counts.
        self.hosts = 0

    @property
    def unmet(self) -> bool:
        return self._dialer.unmet

    @property
    def up(self) -> bool:
        return self._channel is not None

    def certificates(self) -> list[Expiry]:
        """When the certificate of the controller ends, while there is one."""
        if self._channel is None:
            return []
        name = self._standing.standing.leader
        return peer_expiry(f"the certificate of controller {name}", self._channel.peer_certificate())

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
        """Find who leads, serve it, and begin again, until cancelled."""
        delay, said = FIRST_DELAY_S, ""
        while True:
            self._lasted_s = 0.0
            reason, retry_s = await self._serve_leader(delay)
            if self._lasted_s > GOOD_S:
                delay = FIRST_DELAY_S
            if reason != said:
                log.warning("no controller", reason=f"{reason}; limits stay as they are")
                said = reason
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
            if retry_s >= delay:  # it was waited for; nobody is spared by more pauses while nobody is there
                delay = min(2 * delay, LAST_DELAY_S)

    async def _serve_leader(self, delay_s: float) -> tuple[str, float]:
        """Why it ended, and when to try again at the latest, if ``delay_s`` is due."""
        try:
            address = await self._dialer.leader()
            channel = await self._dialer.connect(address)
        except Unreachable as error:
            return str(error), min(delay_s, UNREACHABLE_DELAY_S)
        except WireError as error:
            return str(error), delay_s if error.retry else HOPELESS_DELAY_S
        try:
            why, retry = await self._converse(channel, address)
        except TakenOver as error:
            channel.close(str(error))
            return str(error), 0.0
        finally:
            self._lose()
            channel.close()
        return why, delay_s if retry else HOPELESS_DELAY_S

    async def _converse(self, channel: Channel, address: Address) -> tuple[str, bool]:
        beside = channel.keep_alive(self._totals), self._dialer.look_around(address)
        try:
            ended = await converse(self._listen(channel), *beside)
        except TakenOver:
            raise
        except WireError as error:
            ended = str(error), error.retry
            channel.close(str(error))
        if channel.session.peer is None and self._dialer.uses_tls:
            # A server refuses a certificate after its own part of the handshake is over.
            ended = f"{ended[0]} before its HELLO; does it refuse our certificate? Its journal says", ended[1]
        return ended

    async def _listen(self, channel: Channel) -> tuple[str, bool]:
        async for message in channel.messages():
            if isinstance(message, Bye):
                return message.reason, message.retry
            await self._take(channel, message)
        return "the controller closed the connection", True

    async def _take(self, channel: Channel, message: Message) -> None:
        match message:
            case Hello():
                await self._introduce(channel, message)
                log.info("controller found", host=message.host, software=message.software)
            case SetLimits() | SetMemory() | DenyMemory() | Release():
                await self._obey(message)
            case Terms(serial, terms):
                await self._save(self._standing.agree(terms))
                self.terms = serial
            case Heartbeat(echo_usec=echo, hosts=hosts) if echo:
                counted = bool(hosts) and self._standing.counted(hosts)
                await self._save(self._standing.heard(echo / 1e6) or counted)
                self.hosts = hosts
            case _:
                pass

    async def _introduce(self, channel: Channel, controller: Hello) -> None:
        if objection := self._standing.standing.objection(controller):
            raise WireError(objection)
        await self._save(self._standing.follow(controller))
        self.terms = self.hosts = 0
        containers = list(self._snapshot())
        for start in range(0, max(1, len(containers)), SNAPSHOT_ITEMS):
            part = containers[start : start + SNAPSHOT_ITEMS]
            channel.send(Snapshot(part, last=start + SNAPSHOT_ITEMS >= len(containers)))
        self._channel, self._found_at = channel, time.monotonic()
        self._turned(True)

    async def _save(self, changed: bool) -> None:
        """A full disk is no reason to go without a controller."""
        if changed:
            try:
                await asyncio.to_thread(self._standing.save)
            except StandingError as error:
                log.warning("not kept over a restart", reason=str(error))

    def _lose(self) -> None:
        if self._channel is not None:
            self._channel, self._lasted_s = None, time.monotonic() - self._found_at
            self._turned(False)

    def close(self) -> None:
        if self._channel is not None:
            with contextlib.suppress(WireError):
                self._channel.close("the agent is stopping")
