"""The control socket and its client, on real sockets."""

import asyncio
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from escra_common.framing import Decoder, encode
from escra_controller import control
from escra_controller.client import MAX_REQUEST_BYTES, QueryError, query
from escra_controller.control import Answer, ControlError, control_socket, serve

Scenario = Callable[[Path], Any]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def echo(request: dict[str, Any]) -> dict[str, Any]:
    if request["op"] == "missing":
        return {"ok": False, "error": "no container 'x'", "code": 4}
    if request["op"] == "long":
        return {"ok": True, "data": "x" * (4 << 20)}
    return {"ok": True, "data": request}


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario, Answer], Any]:
    """Run a scenario in a thread while a control socket is served, on either event loop."""

    def run(scenario: Scenario, answer: Answer = echo) -> Any:
        async def main(listener: socket.socket) -> Any:
            server = asyncio.create_task(serve(listener, answer))
            try:
                return await asyncio.to_thread(scenario, path)
            finally:
                server.cancel()
                await asyncio.wait([server])

        path = tmp_path / "controller.sock"
        with control_socket(path) as listener, asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(main(listener))

    return run


Served = Callable[..., Any]


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        client.connect(str(path))
        yield client


def replies(client: socket.socket) -> list[Any]:
    """Everything the server says until it closes."""
    decoder = Decoder()
    found: list[Any] = []
    while data := client.recv(1 << 16):
        found += decoder.feed(data)
    return found


def test_a_question_is_answered(served: Served) -> None:
    assert served(lambda path: query(path, {"op": "ps", "app": "shop"})) == {"op": "ps", "app": "shop"}


def test_the_socket_is_for_its_group_only(served: Served) -> None:
    assert served(lambda path: stat.S_IMODE(path.stat().st_mode)) == 0o660


def test_a_refusal_keeps_its_code(served: Served) -> None:
    def ask(path: Path) -> QueryError:
        with pytest.raises(QueryError, match="no container 'x'") as caught:
            query(path, {"op": "missing"})
        return caught.value

    assert served(ask).code == 4


def test_many_requests_at_once_are_answered_in_order(served: Served) -> None:
    def ask(path: Path) -> list[Any]:
        with connected(path) as client:
            client.sendall(b"".join(encode({"op": "n", "n": n}) for n in range(50)))
            client.shutdown(socket.SHUT_WR)
            return replies(client)

    assert [reply["data"]["n"] for reply in served(ask)] == list(range(50))


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", "msgpack"),
        (struct.pack(">I", MAX_REQUEST_BYTES + 1), "limit"),
        (encode(["ps"]), "op"),
        (encode({"op": 7}), "op"),
    ],
)
def test_nonsense_costs_its_own_connection_only(served: Served, sent: bytes, complaint: str) -> None:
    def ask(path: Path) -> list[Any]:
        with connected(path) as client:
            client.sendall(sent)
            found = replies(client)
        assert query(path, {"op": "ps"}) == {"op": "ps"}
        return found

    (reply,) = served(ask)
    assert reply["ok"] is False
    assert complaint in reply["error"]


def test_clients_that_hang_are_dropped_and_delay_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.3)
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 4)

    def ask(path: Path) -> None:
        with connected(path) as silent, connected(path) as half, connected(path) as deaf:
            half.sendall(encode({"op": "ps"})[:5])
            deaf.sendall(encode({"op": "long"}))
            began = time.monotonic()
            assert query(path, {"op": "ps"}) == {"op": "ps"}
            assert time.monotonic() - began < 0.2
            assert silent.recv(1) == b""
            assert half.recv(1) == b""
            with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
                _write_until_refused(deaf)

    served(ask)


def _write_until_refused(client: socket.socket) -> None:
    while True:
        client.sendall(encode({"op": "ps"}))
        time.sleep(0.01)


def test_a_long_answer_arrives_whole(served: Served) -> None:
    assert served(lambda path: len(query(path, {"op": "long"}))) == 4 << 20


def test_cancelled_with_clients_connected(served: Served) -> None:
    clients: list[socket.socket] = []

    def leave_open(path: Path) -> None:
        clients.append(socket.socket(socket.AF_UNIX))
        clients[0].connect(str(path))
        time.sleep(0.05)

    served(leave_open)
    with clients[0] as client:
        client.settimeout(1.0)
        assert client.recv(1) == b""


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with control_socket(path), connected(path):
        pass
    assert list(tmp_path.iterdir()) == []  # removed at the end, and nothing else left


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with control_socket(path):
        with pytest.raises(ControlError, match="another controller"), control_socket(path):
            pass
        with connected(path):
            pass


def test_the_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with control_socket(path):
        path.unlink()
        path.write_text("somebody else's")
    assert path.exists()


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ControlError, match="no socket"), control_socket(path):
        pass
    assert path.read_text() == "data"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "controller.sock"
    with pytest.raises(ControlError, match=r"nowhere/controller\.sock: No such file"), control_socket(path):
        pass


@pytest.mark.parametrize("stale", [False, True])
def test_no_controller(tmp_path: Path, stale: bool) -> None:
    path = tmp_path / "controller.sock"
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with pytest.raises(QueryError, match=r"not running.*systemctl start escra-controller") as caught:
        query(path, {"op": "ps"})
    assert caught.value.code == 3


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with control_socket(path):
        tmp_path.chmod(0)
        if root := os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(QueryError, match="add yourself to group escra") as caught:
                query(path, {"op": "ps"})
        finally:
            if root:
                os.seteuid(0)
            tmp_path.chmod(0o700)
    assert caught.value.code == 1


def test_an_answer_that_does_not_come(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with control_socket(path):
        began = time.monotonic()
        with pytest.raises(QueryError, match=r"no answer within 0\.2 s"):
            query(path, {"op": "ps"}, timeout=0.2)
        assert time.monotonic() - began < 1.0


def test_an_answer_that_is_none(served: Served) -> None:
    def ask(path: Path) -> None:
        with pytest.raises(QueryError, match="another version"):
            query(path, {"op": "ps"})

    served(ask, lambda request: {"rows": []})
