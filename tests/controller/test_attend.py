"""One connection of the agents' port, in this process: what counts before it has joined, and after."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from escra_common.framing import Decoder
from escra_common.messages import Heartbeat, Message, Samples, Snapshot
from escra_common.session import Session, hello
from escra_controller import server
from escra_controller.events import AgentJoined, AgentLeft, Event
from escra_controller.server import AgentServer


class Peer:
    """Speaks the agent's side by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._session = Session(hello("agent", host, boot_id=host), 0)
        self._reader, self.writer = reader, writer
        writer.write(self._session.greeting(0))

    def say(self, *messages: Message) -> None:
        """In one piece."""
        self.writer.write(b"".join(self._session.send(message, 0) for message in messages))

    async def told(self) -> str:
        """Everything that it hears until the connection is closed."""
        return str(list(Decoder().feed(await self._reader.read())))


def attended(scene: Callable[[Callable[[str], Awaitable[Peer]]], Awaitable[None]]) -> tuple[list[Event], int]:
    """What the controller made of ``scene``, which dials as a host; and how many showed who they are."""
    events: list[Event] = []
    known = 0

    def count() -> None:
        nonlocal known
        known += 1

    async def main() -> None:
        agents = AgentServer("ctl", events.append, lambda agent: None, lambda: 1)
        agents.lead(1)
        listener = await asyncio.start_server(lambda r, w: agents.attend(r, w, count), "127.0.0.1", 0)
        peers: list[Peer] = []

        async def dial(host: str) -> Peer:
            streams = await asyncio.open_connection(*listener.sockets[0].getsockname())
            peers.append(Peer(*streams, host))
            return peers[-1]

        await scene(dial)
        for peer in peers:
            peer.writer.close()
        listener.close()
        await asyncio.sleep(0.05)

    uvloop.run(main())
    return events, known


def test_who_says_hello_and_no_more_is_a_stranger_and_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "JOIN_S", 0.3)

    async def scene(dial: Callable[[str], Awaitable[Peer]]) -> None:
        peer = await dial("idle")
        for _ in range(5):
            peer.say(Heartbeat(ticks=7, sent_usec=1))
            await asyncio.sleep(0.02)
        assert "no snapshot within 0.3 s" in await peer.told()

    assert attended(scene) == ([], 0), "its totals are nobody's"


def test_who_joined_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "JOIN_S", 0.1)

    async def scene(dial: Callable[[str], Awaitable[Peer]]) -> None:
        peer = await dial("busy")
        peer.say(Snapshot([]))
        await asyncio.sleep(0.3)
        peer.say(Heartbeat())
        await asyncio.sleep(0.05)

    events, known = attended(scene)
    assert [type(event).__name__ for event in events] == ["AgentJoined", "AgentReported", "AgentLeft"]
    assert known == 1


def test_what_a_replaced_connection_still_says_is_not_heard() -> None:
    async def scene(dial: Callable[[str], Awaitable[Peer]]) -> None:
        old = await dial("twice")
        old.say(Snapshot([]))
        await asyncio.sleep(0.05)
        new = await dial("twice")
        old.say(*[Samples([])] * 1000)
        new.say(Snapshot([]))
        await asyncio.sleep(0.1)
        assert "replaced by a new connection" in await old.told()

    events, _ = attended(scene)
    left = next(n for n, event in enumerate(events) if isinstance(event, AgentLeft))
    assert isinstance(events[left + 1], AgentJoined)
    assert not any(type(event).__name__ == "SamplesArrived" for event in events[left + 1 :])


def test_one_who_talks_without_end_leaves_others_their_turn() -> None:
    async def scene(dial: Callable[[str], Awaitable[Peer]]) -> None:
        flood = await dial("flood")
        flood.say(Snapshot([]), *[Heartbeat()] * 20_000)
        quiet = await dial("quiet")
        quiet.say(Snapshot([]))
        await asyncio.sleep(1.0)

    events, _ = attended(scene)
    joined = [n for n, event in enumerate(events) if isinstance(event, AgentJoined)]
    assert len(events) > 20_000
    assert len(joined) == 2
    assert joined[1] < 10_000, "it came in between"
