"""One who has reached the agents' port and means no good.

    python -m benchmarks.attacker KIND ADDRESS PORT SECONDS CA CERT KEY FROM...

All connections of a kind at the same time, from all addresses FROM in turns; who is cut off comes back.
The certificate is a good one, for the host ``evil``: of some other host, or stolen.  Prints how often it
connected.
"""

import asyncio
import contextlib
import itertools
import os
import random
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from escra_common.messages import Container, CpuLimit, Heartbeat, Sample, Samples, Snapshot
from escra_common.session import Session, hello
from escra_common.tls import Credentials, TlsConfig

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
EVIL, HONEST = "evil", "honest"
# Between being cut off and coming back: else this is about how fast one process can dial.
PAUSE_S = 0.05
CONNECTIONS, DIALLED_AT_ONCE = 10_000, 50
FILES = CONNECTIONS + 2000


@dataclass(slots=True)
class Attacker:
    address: str
    port: int
    tls: ssl.SSLContext
    sources: Sequence[str]
    connected: int = 0
    recorded: bytes = b""
    _turns: "itertools.count[int]" = field(default_factory=itertools.count)

    @contextlib.asynccontextmanager
    async def dial(self, *, tls: bool) -> AsyncIterator[Streams]:
        source = self.sources[next(self._turns) % len(self.sources)]
        reader, writer = await asyncio.open_connection(
            self.address, self.port, local_addr=(source, 0), ssl=self.tls if tls else None
        )
        self.connected += 1
        try:
            yield reader, writer
        finally:
            writer.close()

    # ---- kinds ---------------------------------------------------------------------

    async def nobody(self) -> None:
        await asyncio.sleep(3600)

    async def loris(self) -> None:
        """A byte of a handshake now and then."""
        async with self.dial(tls=False) as (reader, writer):
            for byte in b"\x16\x03\x01\x02\x00\x01" * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await _cut_off(reader, 0.3)

    async def connections(self) -> None:
        """As many as one process can hold, without asyncio: it would be the one that is kept busy."""
        await asyncio.to_thread(self._hold_connections)

    def _hold_connections(self) -> None:
        held: dict[int, socket.socket] = {}
        events = select.epoll()
        while True:
            for _ in range(min(DIALLED_AT_ONCE, CONNECTIONS - len(held))):
                peer = socket.socket()
                peer.setblocking(False)
                peer.bind((self.sources[next(self._turns) % len(self.sources)], 0))
                peer.connect_ex((self.address, self.port))
                events.register(peer, select.EPOLLRDHUP)
                held[peer.fileno()] = peer
                self.connected += 1
            for fd, _ in events.poll(0.001):
                events.unregister(fd)
                held.pop(fd).close()

    async def handshakes(self) -> None:
        async with self.dial(tls=True):
            pass

    async def silence(self) -> None:
        """Through the door, and then not a word."""
        async with self.dial(tls=True) as (reader, _):
            await reader.read()

    async def garbage(self) -> None:
        async with self.dial(tls=random.random() < 0.5) as (reader, writer):
            writer.write(os.urandom(4096))
            await reader.read()

    async def wrong_host(self) -> None:
        async with self.dial(tls=True) as (reader, writer):
            writer.write(_session(HONEST).greeting(0))
            await reader.read()

    async def replayed(self) -> None:
        """What an honest agent sent over the wire, byte for byte."""
        self.recorded = self.recorded or await self._record()
        async with self.dial(tls=False) as (reader, writer):
            writer.write(self.recorded)
            await reader.read()

    async def huge(self) -> None:
        """Says HELLO, announces 4 GiB, and sends what it can of it."""
        async with self.dial(tls=True) as (reader, writer):
            writer.write(_session(EVIL).greeting(0) + b"\xff\xff\xff\xff")
            while not reader.at_eof():
                writer.write(bytes(1 << 16))
                await writer.drain()
                await _cut_off(reader, 0.001)

    async def lingering(self) -> None:
        """Says HELLO and is alive, but never what it holds."""
        session = _session(EVIL)
        async with self.dial(tls=True) as (reader, writer):
            writer.write(session.greeting(0))
            while not reader.at_eof():
                writer.write(session.send(Heartbeat(), 0))
                await writer.drain()
                await _cut_off(reader, 0.5)

    async def flood(self) -> None:
        """An agent like any other, that talks without end: in short words."""
        await self._talk(lambda sent: Heartbeat(ticks=sent))

    async def flood_long(self) -> None:
        """In long ones."""
        await self._talk(lambda sent: Samples([Sample(7, sent, sent, sent, 0, 0, 0, 0)] * 4096))

    # ---- helpers -------------------------------------------------------------------

    async def _talk(self, word: Callable[[int], Heartbeat | Samples]) -> None:
        session = _session(EVIL)
        async with self.dial(tls=True) as (reader, writer):
            one = CpuLimit(100_000, 100_000)
            container = Container(7, "evil", "evil", "bench", "/evil", "auto", one, one)
            writer.write(session.greeting(0) + session.send(Snapshot([container]), 0))
            template, sent = msgspec.to_builtins(word(1)), 0
            while not reader.at_eof():
                writer.write(b"".join(session.frame(template, 0) for _ in range(32)))
                await writer.drain()
                sent += 32
                await _cut_off(reader, 0)

    async def _record(self) -> bytes:
        """A whole session with the controller, as somebody on the way would have seen it."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.tls.wrap_bio(incoming, outgoing, server_hostname=self.address)
        recorded = b""
        async with self.dial(tls=False) as (reader, writer):
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(sent := outgoing.read())
                    recorded += sent
                    incoming.write(await reader.read(1 << 16))
            session = _session(EVIL)
            client.write(session.greeting(0) + session.send(Snapshot([]), 0))
            writer.write(sent := outgoing.read())
            await reader.read(1 << 16)
            return recorded + sent


# How many at a time, and what each of them does.
ATTACKS: dict[str, tuple[int, Callable[[Attacker], Awaitable[None]]]] = {
    "nobody": (1, Attacker.nobody),
    "slow-loris": (1000, Attacker.loris),
    "connections": (1, Attacker.connections),
    "handshakes": (64, Attacker.handshakes),
    "silence": (500, Attacker.silence),
    "garbage": (64, Attacker.garbage),
    "wrong-host": (64, Attacker.wrong_host),
    "replayed": (64, Attacker.replayed),
    "huge-frames": (64, Attacker.huge),
    "lingering": (500, Attacker.lingering),
    "flood": (1, Attacker.flood),
    "flood-long": (1, Attacker.flood_long),
}


async def _cut_off(reader: asyncio.StreamReader, seconds: float) -> None:
    """Waits so long; raises ConnectionError when the other end has had enough."""
    try:
        async with asyncio.timeout(seconds):
            if not await reader.read(1 << 16):
                raise ConnectionError
    except TimeoutError:
        pass


def _session(host: str) -> Session:
    return Session(hello("agent", host, boot_id=host, cpus=1), 0)


async def _again_and_again(attacker: Attacker, attack: Callable[[Attacker], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError):
            await attack(attacker)
        await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.5))


async def _attack(attacker: Attacker, kind: str, seconds: float) -> None:
    width, attack = ATTACKS[kind]
    end = time.monotonic() + seconds
    tasks: list[asyncio.Task[None]] = []
    for _ in range(width):
        tasks.append(asyncio.create_task(_again_and_again(attacker, attack)))
        if len(tasks) % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(max(0.0, end - time.monotonic()))
    print(attacker.connected, flush=True)
    os._exit(0)  # as it came, without a word to anybody


def main(
    kind: str, address: str, port: str, seconds: str, ca: str, cert: str, key: str, *sources: str
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    os.nice(19)
    tls = Credentials(TlsConfig(ca, cert, key), server=False).context
    attacker = Attacker(address, int(port), tls, sources)
    asyncio.run(_attack(attacker, kind, float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
