"""The agents' door: what a stranger can cost there, and what is said about it."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from escra_common.tls import Credentials, TlsConfig
from escra_controller import reception
from escra_controller.reception import Reception, listening_sockets
from escra_controller.strangers import MAX_PER_ADDRESS
from tests.pki_files import Authority

Ask = Callable[[ssl.SSLContext | None], Awaitable[str]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def server(authority: Authority) -> TlsConfig:
    return authority.issue("controller", "127.0.0.1")


@pytest.fixture
def agent(authority: Authority) -> ssl.SSLContext:
    return Credentials(authority.issue("agent", "host-1"), server=False).context


def welcoming(
    tls: TlsConfig | None, scene: Callable[[int, Ask], Awaitable[None]], *, addresses: int = 1
) -> list[str]:
    """Run ``scene`` against a reception that greets whom it lets in; what was logged."""

    async def attend(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, known: Callable[[], None]
    ) -> None:
        known()
        writer.write(b"welcome")
        await writer.drain()
        writer.close()

    async def main() -> None:
        listeners = listening_sockets("127.0.0.1", 0)
        port = listeners[0].getsockname()[1]

        async def ask(client: ssl.SSLContext | None) -> str:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
                try:
                    return (await reader.read()).decode()
                finally:
                    writer.close()
            except OSError:
                return ""

        credentials = Credentials(tls, server=True) if tls else None
        async with asyncio.TaskGroup() as tasks:
            door = tasks.create_task(Reception(listeners, attend, credentials).run())
            async with asyncio.timeout(20):
                await scene(port, ask)
            door.cancel()
        assert all(listener.fileno() == -1 for listener in listeners)

    with capture_logs() as logs:
        uvloop.run(main())
    assert {entry["kind"] for entry in logs} <= {"bad_peer"}
    return [entry["reason"] for entry in logs]


def test_without_tls_everybody_is_let_in() -> None:
    async def scene(port: int, ask: Ask) -> None:
        assert await ask(None) == "welcome"

    assert welcoming(None, scene) == []


def test_strangers_are_turned_away_and_the_log_says_why(
    authority: Authority, server: TlsConfig, agent: ssl.SSLContext, tmp_path: Path
) -> None:
    nameless = ssl.create_default_context(cafile=server.ca)
    old = Credentials(authority.issue("agent", "host-2"), server=False).context
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    stranger = Credentials(Authority(tmp_path / "b").issue("agent", "host-1"), server=False).context
    stranger.load_verify_locations(server.ca)
    ended = Credentials(authority.issue("agent", "host-3", days=10, ago_days=30), server=False).context
    controller = ssl.create_default_context(cafile=server.ca)
    controller.load_cert_chain(server.cert, server.key)
    strangers = {
        "peer did not return a certificate": nameless,
        "unsupported protocol": old,
        "certificate not accepted: ": stranger,
        "certificate has expired": ended,
        "unsuitable certificate purpose": controller,
    }

    async def scene(port: int, ask: Ask) -> None:
        for context in strangers.values():
            assert await ask(context) == ""
            assert await ask(agent) == "welcome"
            await asyncio.sleep(1.05)  # a line per second

    logged = welcoming(server, scene)
    assert len(logged) == len(strangers)
    for said, why in zip(logged, strangers, strict=True):
        assert why in said


def test_the_silent_are_cut_off_and_cost_a_line_a_second(server: TlsConfig, agent: ssl.SSLContext) -> None:
    async def scene(port: int, ask: Ask) -> None:
        started = time.monotonic()
        loris = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        for _, writer in loris[::2]:
            writer.write(b"\x16\x03\x01")
        for reader, writer in loris:
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.close()
        assert reception.HANDSHAKE_S - 0.2 < time.monotonic() - started < reception.HANDSHAKE_S + 1
        assert await ask(agent) == "welcome"

    logged = welcoming(server, scene)
    assert 1 <= len(logged) <= 2
    assert "no TLS handshake within 2 s" in logged


def test_one_address_cannot_keep_the_others_out(server: TlsConfig, agent: ssl.SSLContext) -> None:
    """The flood comes from 127.0.0.2, the agent from 127.0.0.1."""

    async def scene(port: int, ask: Ask) -> None:
        flood = [socket.socket() for _ in range(300)]
        try:
            for peer in flood:
                peer.setblocking(False)
                peer.bind(("127.0.0.2", 0))
                with contextlib.suppress(BlockingIOError):
                    peer.connect(("127.0.0.1", port))
            await asyncio.sleep(0.3)
            started = time.monotonic()
            assert await ask(agent) == "welcome"
            assert time.monotonic() - started < 0.5
            cut = sum(_closed(peer) for peer in flood)
            assert cut == len(flood) - MAX_PER_ADDRESS, "the rest is not even kept waiting"
        finally:
            for peer in flood:
                peer.close()

    assert len(welcoming(server, scene)) <= 2


def _closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_hosts_behind_one_address_come_back_together(server: TlsConfig, agent: ssl.SSLContext) -> None:
    async def scene(port: int, ask: Ask) -> None:
        for _ in range(3):  # more than may wait at once, but those before them are through
            answers = await asyncio.gather(*(ask(agent) for _ in range(MAX_PER_ADDRESS - 4)))
            assert set(answers) == {"welcome"}

    assert welcoming(server, scene) == []


def test_a_taken_address_is_an_error() -> None:
    (first,) = listening_sockets("127.0.0.1", 0)
    with first, pytest.raises(OSError, match="in use"):
        listening_sockets("127.0.0.1", first.getsockname()[1])
