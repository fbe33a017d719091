"""The network between the simulated hosts: streams with TCP's manners, and everything that goes wrong.

A stream delivers its bytes in order.  While the way is blocked they are stuck, and come when it opens
again; a host that is switched off swallows them; a process that ends leaves its streams to its
kernel, which closes them.  Only on request single frames (one write is one frame) are lost,
repeated or swapped, which TCP never does: an attacker or a broken proxy might.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.simulation.clockwork import Clockwork, Process

Address = tuple[str, int]
SYN_AGAIN_S = 1.0


class Place(Protocol):
    """A host, as far as the network sees it."""

    name: str
    on: bool


@dataclass(slots=True)
class Weather:
    """How the network is now.  Delays in seconds; a share of the frames meets each of the faults."""

    delay_s: tuple[float, float] = (0.0002, 0.003)
    lose: float = 0.0
    repeat: float = 0.0
    swap: float = 0.0
    # (from, to) pairs of host names between which nothing gets through; "*" is everybody.
    blocked: set[tuple[str, str]] = field(default_factory=set)

    def blocks(self, source: str, target: str) -> bool:
        return bool(self.blocked) and any(
            pair in self.blocked for pair in ((source, target), (source, "*"), ("*", target))
        )


class Network:
    """``heard`` is told of every delivery: who, from whom, the bytes."""

    def __init__(self, clockwork: Clockwork, heard: Callable[[str, str, bytes], None]) -> None:
        self.clockwork = clockwork
        self.weather = Weather()
        self.slow: dict[str, float] = {}
        self.heard = heard
        self._places: dict[str, Place] = {}
        self._of: dict[int, Place] = {}
        self._listeners: dict[Address, tuple[Process, Callable[[], asyncio.Protocol]]] = {}
        self.ends: list[End] = []
        self._waiting: list[Pipe] = []

    def add(self, place: Place) -> None:
        self._places[place.name] = place

    def plug(self, process: Process, place: Place) -> None:
        process.plug(self)
        self._of[id(process)] = place

    def delay(self, source: str, target: str) -> float:
        extra = self.slow.get(source, 0.0) + self.slow.get(target, 0.0)
        least, most = self.weather.delay_s
        return self.clockwork.rng.uniform(least, most) + (extra and self.clockwork.rng.uniform(0, extra))

    # ---- connections ---------------------------------------------------------------

    def listen(self, process: Process, address: Address, factory: Callable[[], asyncio.Protocol]) -> "Server":
        self._listeners[self._of[id(process)].name, address[1]] = process, factory
        return Server()

    def dial(
        self,
        process: Process,
        address: Address,
        factory: Callable[[], asyncio.Protocol],
        answer: asyncio.Future[Any],
    ) -> None:
        source, target = self._of[id(process)], self._places[address[0]]
        delay = self.delay(source.name, target.name)
        self.clockwork.after(delay, self._knock, process, source, target, address[1], factory, answer)

    def _knock(
        self,
        process: Process,
        source: Place,
        target: Place,
        port: int,
        factory: Callable[[], asyncio.Protocol],
        answer: asyncio.Future[Any],
    ) -> None:
        if answer.done() or process.dead:
            return
        blocked = self.weather.blocks(source.name, target.name) or self.weather.blocks(
            target.name, source.name
        )
        if blocked or not target.on:
            again = (process, source, target, port, factory, answer)
            self.clockwork.after(SYN_AGAIN_S, self._knock, *again)
            return
        back = self.clockwork.now + self.delay(target.name, source.name)
        listener = self._listeners.get((target.name, port))
        if listener is None or listener[0].dead:
            self.clockwork.at(back, process.post, _refuse, answer)
            return
        server, server_factory = listener
        near, far = End(self, process, source), End(self, server, target)
        near.join(far)
        server.post(far.open, server_factory)
        self.clockwork.at(back, process.post, _accept, answer, near, factory)

    # ---- faults --------------------------------------------------------------------

    def block(self, source: str, target: str) -> None:
        self.weather.blocked.add((source, target))

    def unblock(self, *pairs: tuple[str, str]) -> None:
        """Without arguments the whole network is healed."""
        self.weather.blocked -= set(pairs or self.weather.blocked)
        waiting, self._waiting = self._waiting, []
        for pipe in waiting:
            pipe.go()

    def reset(self, name: str) -> None:
        """All connections of this host break, both ends hear of it."""
        for end in [e for e in self.ends if e.place.name == name]:
            for each in (end, end.other):
                each.lost(ConnectionResetError(104, "Connection reset by peer"))

    def ended(self, process: Process, *, silently: bool = False) -> None:
        """The process is no more; its kernel says so to its peers, unless its host went with it."""
        for end in [e for e in self.ends if e.process is process]:
            self.ends.remove(end)
            if not silently and not end.closed:
                end.pipe.put(None)
            end.closed = True

    def park(self, pipe: "Pipe") -> None:
        self._waiting.append(pipe)


class Server:
    """What asyncio.start_server returns."""

    sockets: tuple[object, ...] = ()

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


class Pipe:
    """One direction of a connection.  None in the queue is the end of the stream."""

    def __init__(self, network: Network, source: "End", target: "End") -> None:
        self._net = network
        self._source, self._target = source, target
        self._queue: deque[bytes | None] = deque()
        self._moving = False
        self.bytes = 0

    def put(self, data: bytes | None) -> None:
        if data is not None:
            rng, weather = self._net.clockwork.rng, self._net.weather
            if weather.lose and rng.random() < weather.lose:
                return
            if weather.swap and self._queue and self._queue[-1] is not None and rng.random() < weather.swap:
                self._queue.insert(len(self._queue) - 1, data)
            else:
                self._queue.append(data)
            if weather.repeat and rng.random() < weather.repeat:
                self._queue.append(data)
                self.bytes += len(data)
            self.bytes += len(data)
        else:
            self._queue.append(None)
        if not self._moving:
            self._moving = True
            self._arm()

    def _arm(self) -> None:
        delay = self._net.delay(self._source.place.name, self._target.place.name)
        self._net.clockwork.after(delay, self.go)

    def go(self) -> None:
        """The oldest that was sent arrives."""
        source, target = self._source, self._target
        if self._net.weather.blocks(source.place.name, target.place.name):
            self._net.park(self)
            return
        if not self._queue:
            self._moving = False
            return
        data = self._queue.popleft()
        if data is not None:
            self.bytes -= len(data)
        if target.place.on:
            if target.closed and not source.closed:
                # The host is there, but nobody holds this connection any more.
                source.lost(ConnectionResetError(104, "Connection reset by peer"))
            else:
                target.take(data)
        if self._queue:
            # What was sent close together arrives close together.
            self._net.clockwork.after(self._net.clockwork.rng.uniform(0, 0.0005), self.go)
        else:
            self._moving = False


class End(asyncio.Transport):
    """One end of a connection, and the transport that asyncio's streams use there."""

    def __init__(self, network: Network, process: Process, place: Place) -> None:
        super().__init__()
        self._net = network
        self.process, self.place = process, place
        self.protocol: asyncio.Protocol | None = None
        self.closed = False
        self._early: list[bytes | None] = []

    def join(self, other: "End") -> None:
        self.other, other.other = other, self
        self.pipe, other.pipe = Pipe(self._net, self, other), Pipe(self._net, other, self)
        self._net.ends += (self, other)

    def open(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        self.protocol = protocol = factory()
        if self._net.clockwork.ended:
            return protocol
        protocol.connection_made(self)
        early, self._early = self._early, []
        for data in early:
            self._hand_over(data)
        return protocol

    # ---- from the network ----------------------------------------------------------

    def take(self, data: bytes | None) -> None:
        if not self.closed:
            self._net.heard(self.place.name, self.other.place.name, data or b"")
            self.process.post(self._hand_over, data)

    def _hand_over(self, data: bytes | None) -> None:
        if self.closed:
            return
        if self.protocol is None:
            self._early.append(data)
        elif data is None:
            self.protocol.eof_received()
        else:
            self.protocol.data_received(data)

    def lost(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        if self in self._net.ends:
            self._net.ends.remove(self)
        self.process.post(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        if self.protocol is not None:
            self.protocol.connection_lost(error)

    # ---- from the process ----------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self.closed and not self._net.clockwork.ended:
            self.pipe.put(bytes(data))

    def close(self) -> None:
        if not self.closed:
            if not self._net.clockwork.ended:
                self.pipe.put(None)
            self.lost(None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.pipe.bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.other.place.name, 0) if name == "peername" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _refuse(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(ConnectionRefusedError(111, "Connection refused"))


def _accept(answer: asyncio.Future[Any], near: End, factory: Callable[[], asyncio.Protocol]) -> None:
    if answer.done():
        near.close()
    else:
        answer.set_result((near, near.open(factory)))
