"""The agents' end: one channel per host, events in, orders out."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
import structlog

from escra_common.channel import Channel, Heartbeats, converse
from escra_common.errors import WireError
from escra_common.expiry import Expiry
from escra_common.messages import (
    MAX_ITEMS,
    Appeared,
    Applied,
    Bye,
    Container,
    CpuOrder,
    DenyMemory,
    Gone,
    Heartbeat,
    Hello,
    MemoryApplied,
    MemoryDrawn,
    MemoryLevels,
    MemoryNeed,
    MemoryOrder,
    Message,
    OomKilled,
    Release,
    Samples,
    SetLimits,
    SetMemory,
    Snapshot,
)
from escra_common.seldom import Seldom
from escra_common.session import Session, hello
from escra_common.tls import certified_names, peer_expiry
from escra_controller import events
from escra_controller.events import AgentJoined, AgentLeft, Event, Order

log = structlog.get_logger()

# One agent per host.
MAX_HOSTS = 4096
# From HELLO to the end of the snapshot; until then a peer counts as a stranger, of whom there are few.
JOIN_S = 10.0
MAX_CONTAINERS = 20_000


class AgentServer:
    """A standby until ``lead``: it takes no agents, but sees who comes.

    ``deliver`` takes each event of an agent; it must not block.  ``met`` hears of every agent that says
    HELLO, before anything is decided about it.  ``counted`` says how many hosts there are, to tell them all.
    """

    def __init__(
        self,
        host: str,
        deliver: Callable[[Event], None],
        met: Callable[[Hello], None],
        counted: Callable[[], int],
    ) -> None:
        self._hello = hello("controller", host, standby=True)
        self._deliver = deliver
        self._met = met
        self._counted = counted
        self._links: dict[str, Channel] = {}
        self._seldom = Seldom()

    def certificates(self) -> list[Expiry]:
        """When the certificates of the connected agents end."""
        return [
            expiry
            for host, channel in self._links.items()
            for expiry in peer_expiry(f"the certificate of agent {host}", channel.peer_certificate())
        ]

    def lead(self, epoch: int) -> None:
        """Take agents from the next connection on, with this epoch; may be called again for another."""
        self._hello = msgspec.structs.replace(self._hello, epoch=epoch, standby=False)

    def dispatch(self, orders: Iterable[Order]) -> None:
        """Send orders to their agents; for hosts that left they are void."""
        for host, message in outgoing(orders):
            self._send(host, message)

    async def attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, known: Callable[[], None]
    ) -> None:
        """Serve one connection to its end; whatever the peer does ends here."""
        channel = Channel(reader, writer, Session(self._hello, time.monotonic()))
        in_time = asyncio.Event()

        def joined() -> None:
            known()
            in_time.set()

        try:
            await converse(self._listen(channel, joined), channel.keep_alive(Heartbeats()), _hurry(in_time))
        except WireError as error:
            self._part(channel, str(error), retry=error.retry, fault=True)
        except asyncio.CancelledError:
            channel.close("the controller is stopping")
            raise
        finally:
            self._part(channel, "the agent closed the connection")
            channel.close()

    async def _listen(self, channel: Channel, joined: Callable[[], None]) -> None:
        messages = channel.messages()
        async with contextlib.aclosing(messages):
            containers: list[Container] = []
            peer: Hello | None = None
            async for message in messages:
                match message:
                    case Hello():
                        peer = message
                        if not self._welcome(channel, peer):
                            return
                    case Snapshot(part, last):
                        containers += part
                        if len(containers) > MAX_CONTAINERS:
                            raise WireError(f"a host with more than {MAX_CONTAINERS} containers")
                        if last and peer is not None:
                            self._join(channel, peer, containers)
                            joined()
                    case Bye(reason):
                        self._part(channel, f"the agent said: {reason}")
                        return
                    case _:
                        assert peer is not None
                        if self._links.get(peer.host) is not channel:
                            continue  # not joined yet, or parted with, and this was still on its way
                        if isinstance(message, Heartbeat) and message.sent_usec:
                            channel.send(Heartbeat(echo_usec=message.sent_usec, hosts=self._counted()))
                        self._deliver(event_of(peer.host, message))

    def _welcome(self, channel: Channel, peer: Hello) -> bool:
        """Whether it is an agent to go on with."""
        self._check_certificate(channel, peer)
        self._met(peer)
        if peer.visiting:
            return False
        if self._hello.standby:
            channel.close(f"{self._hello.host} is a standby and takes no agents")
            return False
        self._check_identity(peer)
        return True

    def _check_certificate(self, channel: Channel, peer: Hello) -> None:
        certificate = channel.peer_certificate()
        if certificate is not None and peer.host.lower() not in certified_names(certificate):
            names = ", ".join(sorted(certified_names(certificate))) or "nobody"
            raise WireError(f"it calls itself {peer.host}, its certificate speaks for {names}", retry=False)

    def _check_identity(self, peer: Hello) -> None:
        current = self._links.get(peer.host)
        if current is None:
            return
        assert current.session.peer is not None
        if current.session.peer.boot_id != peer.boot_id:
            raise WireError(
                f"duplicate host name: another machine is connected as {peer.host} from "
                f"{current.peer_address}; set `host` in one of the two agent.toml"
            )
        # The same machine: an agent that restarted, or whose old connection died unnoticed.
        self._part(current, "replaced by a new connection of the same host")
        current.close("replaced by a new connection of the same host")

    def _join(self, channel: Channel, peer: Hello, containers: list[Container]) -> None:
        if self._hello.standby:
            raise WireError(f"{self._hello.host} is a standby and takes no agents")
        keys = {container.key for container in containers}
        if len(keys) != len(containers):
            raise WireError("the snapshot lists one container twice")
        if peer.host in self._links:
            raise WireError(f"duplicate host name {peer.host}")
        if len(self._links) >= MAX_HOSTS:
            raise WireError(f"{MAX_HOSTS} hosts are connected already")
        self._links[peer.host] = channel
        log.info(
            "agent joined",
            kind="agent_joined",
            host=peer.host,
            containers=len(containers),
            address=channel.peer_address,
            software=peer.software,
        )
        if peer.hosts_epoch >= self._hello.epoch:  # of ourselves: no news, or old
            peer = msgspec.structs.replace(peer, hosts=0)
        self._deliver(AgentJoined(peer, containers))

    def _part(self, channel: Channel, reason: str, *, retry: bool = True, fault: bool = False) -> None:
        """Forget a channel, once; tell the engine if it spoke for a host."""
        peer = channel.session.peer
        if peer is not None and self._links.get(peer.host) is channel:
            del self._links[peer.host]
            log.warning("agent left", kind="agent_left", host=peer.host, reason=reason)
            self._deliver(AgentLeft(peer.host, reason))
        elif fault and self._seldom.allows(channel.peer_host, time.monotonic()):
            log.warning("connection refused", kind="bad_peer", reason=reason, address=channel.peer_address)
        if fault:
            channel.close(reason, retry=retry)

    def _send(self, host: str, message: Message) -> None:
        channel = self._links.get(host)
        if channel is None:
            return
        try:
            channel.send(message)
        except WireError as error:
            self._part(channel, str(error))
            channel.close()


async def _hurry(in_time: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(JOIN_S):
            await in_time.wait()
    except TimeoutError:
        raise WireError(f"no snapshot within {JOIN_S:g} s") from None


def outgoing(orders: Iterable[Order]) -> Iterator[tuple[str, Message]]:
    """The messages that carry these orders, those of one host together."""
    cpu: dict[str, list[CpuOrder]] = {}
    memory: dict[str, list[MemoryOrder]] = {}
    for order in orders:
        match order:
            case events.SendTerms(host, terms):
                yield host, terms
            case events.SetLimit(host, key, rev, cpu_milli, burst_milli, aligned, headroom_milli):
                quota = CpuOrder(key, rev, cpu_milli, burst_milli, aligned, headroom_milli)
                cpu.setdefault(host, []).append(quota)
            case events.SetMemoryLimit(host, key, rev, max_bytes, margin_bytes, headroom_bytes):
                size = MemoryOrder(key, rev, max_bytes, margin_bytes, headroom_bytes)
                memory.setdefault(host, []).append(size)
            case events.DenyNeed(host, key, serial, reason):
                yield host, DenyMemory(key, serial, reason)
            case events.ReleaseContainer(host, key, rev):
                yield host, Release(key, rev)
    # Memory first: somebody may be waiting for it in the kernel.
    for host, sizes in memory.items():
        for start in range(0, len(sizes), MAX_ITEMS):
            yield host, SetMemory(sizes[start : start + MAX_ITEMS])
    for host, quotas in cpu.items():
        for start in range(0, len(quotas), MAX_ITEMS):
            yield host, SetLimits(quotas[start : start + MAX_ITEMS])


def event_of(host: str, message: Message) -> Event:
    """What a message of a host that has joined means to the engine."""
    match message:
        case Samples(samples):
            return events.SamplesArrived(host, samples)
        case Applied(acks):
            return events.LimitsApplied(host, acks)
        case MemoryNeed():
            return events.MemoryNeeded(host, message)
        case MemoryDrawn():
            return events.MemoryDrew(host, message)
        case MemoryApplied(memory_acks):
            return events.MemoryApplied(host, memory_acks)
        case MemoryLevels(levels):
            return events.MemoryArrived(host, levels)
        case OomKilled():
            return events.TasksKilled(host, message)
        case Appeared(container):
            return events.ContainerAppeared(host, container)
        case Gone(key):
            return events.ContainerGone(host, key)
        case Heartbeat():
            return events.AgentReported(host, message)
        case _:
            raise WireError(f"unexpected {type(message).__name__}")
