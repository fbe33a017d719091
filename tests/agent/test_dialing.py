"""Finding a controller on a network that swallows packets, or answers with a refusal."""

import asyncio
import socket
import time

import pytest
import uvloop

from escra_agent.dialing import REACH_S, Dialer, Unreachable
from escra_agent.standing import Standing
from escra_common.configfile import Address, Addresses
from escra_common.session import Session, hello


def dial(*addresses: Address) -> float:
    """How long it took to find that nobody is there."""
    dialer = Dialer(Addresses(list(addresses)), hello("agent", "h"), Standing())

    async def main() -> None:
        await dialer.connect(await dialer.leader())

    began = time.monotonic()
    with pytest.raises(Unreachable):
        uvloop.run(main())
    return time.monotonic() - began


@pytest.fixture
def refusing() -> Address:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address(f"127.0.0.1:{probe.getsockname()[1]}")


def test_who_refuses_is_unreachable_at_once(refusing: Address) -> None:
    assert dial(refusing) < 0.5
    assert dial(refusing, refusing) < 0.5, "also of several"


def test_who_does_not_answer_is_given_up_before_a_third_packet() -> None:
    """A full backlog swallows packets, as a partition does."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            took_s = dial(Address(f"127.0.0.1:{port}"))
        finally:
            for each in waiting:
                each.close()
    assert REACH_S - 0.1 < took_s < 2.0


def test_orders_do_not_wait_for_full_packets() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dialer = Dialer(Addresses([Address(f"127.0.0.1:{port}")]), hello("agent", "h"), Standing())
        channel = await dialer.connect(Address(f"127.0.0.1:{port}"))
        peer = channel._writer.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        channel.close()
        server.close()

    uvloop.run(main())


def test_a_controller_that_was_not_there_is_met_soon(
    refusing: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are visited now and then; one that knows nothing of this host, at once."""
    monkeypatch.setattr("escra_agent.dialing.UNMET_EVERY_S", 0.05)

    async def main() -> None:
        present = Address("127.0.0.1:1")
        dialer = Dialer(Addresses([present, refusing]), hello("agent", "h"), Standing())
        assert dialer.unmet
        looking = asyncio.create_task(dialer.look_around(present))
        await asyncio.sleep(0.2)
        met = asyncio.Event()

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            controller = Session(hello("controller", "c", standby=True), 0)
            writer.write(controller.greeting(0))
            while controller.peer is None:
                controller.receive(await reader.read(1 << 16), 0)
            assert controller.peer.visiting
            met.set()
            writer.close()

        server = await asyncio.start_server(greet, refusing.host, refusing.port)
        await asyncio.wait_for(met.wait(), 10)
        looking.cancel()
        await asyncio.wait([looking])
        server.close()
        await server.wait_closed()

    uvloop.run(main())


def test_with_one_controller_there_is_nobody_to_meet(refusing: Address) -> None:
    assert not Dialer(Addresses([refusing]), hello("agent", "h"), Standing()).unmet
