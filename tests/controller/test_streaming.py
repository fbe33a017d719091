"""Answers that go on, on real sockets: slow readers, deaf ones, many of them."""

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from escra_common.framing import Decoder, encode
from escra_controller import control
from escra_controller.client import MAX_REPLY_BYTES, query
from escra_controller.queries import MIN_INTERVAL_S, Watch
from escra_controller.streaming import Replies
from escra_controller.watching import Pictures
from tests.controller.test_cli import World, serving

LARGE = 256 << 10


class Source:
    """Answers ``count`` with numbers, every 10 ms, and knows how many it made and for whom it still does."""

    def __init__(self) -> None:
        self.made = 0
        self.open = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any] | Replies:
        if request["op"] == "count":
            return self._count(int(request.get("size", 0)), int(request.get("until", 1 << 30)))
        return {"ok": True, "data": request["op"]}

    async def _count(self, size: int, until: int) -> Replies:
        self.open += 1
        try:
            for n in range(until):
                self.made += 1
                yield {"ok": True, "data": {"n": n, "filling": "x" * size}}
                await asyncio.sleep(0.01)
        finally:
            self.open -= 1


class Client:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5.0)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._decoder = Decoder(MAX_REPLY_BYTES)
        self._heard: list[Any] = []

    def ask(self, **request: Any) -> None:
        self.socket.sendall(encode(request))

    def hear(self) -> Any:
        """The next reply, None when the other side has closed."""
        while not self._heard:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self._heard += self._decoder.feed(data)
        return self._heard.pop(0)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def path(tmp_path: Path, source: Source) -> Iterator[Path]:
    path = tmp_path / "controller.sock"
    with serving(path, source.answer):
        yield path


@contextlib.contextmanager
def asking(path: Path, **request: Any) -> Iterator[Client]:
    client = Client(path)
    with client.socket:
        client.ask(**request)
        yield client


def wait_until_closed(source: Source) -> None:
    end = time.monotonic() + 10.0
    while source.open and time.monotonic() < end:
        time.sleep(0.01)
    assert source.open == 0


def test_replies_come_until_the_client_leaves(path: Path, source: Source) -> None:
    with asking(path, op="count") as client:
        assert [client.hear()["data"]["n"] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert source.open == 1
    wait_until_closed(source)


def test_an_answer_that_ends_closes_the_connection(path: Path) -> None:
    with asking(path, op="count", until=2) as client:
        assert [client.hear()["data"]["n"] for _ in range(2)] == [0, 1]
        assert client.hear() is None


def test_another_question_takes_its_place_and_no_reply_is_cut(path: Path, source: Source) -> None:
    with asking(path, op="count", size=LARGE) as client:
        assert client.hear()["data"]["n"] == 0
        client.ask(op="hello")
        while isinstance(data := client.hear()["data"], dict):
            assert len(data["filling"]) == LARGE
        assert data == "hello"
        client.ask(op="count")
        assert client.hear()["data"]["n"] == 0


def test_nothing_is_made_for_a_reader_that_is_slow(path: Path, source: Source) -> None:
    with asking(path, op="count", size=LARGE) as client:
        client.hear()
        time.sleep(0.5)  # fifty beats
        assert source.made < 10  # what the kernel took, and one that waits
        for _ in range(source.made + 5):
            client.hear()


def test_a_reader_that_takes_nothing_is_dropped(
    path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.3)
    with asking(path, op="count", size=LARGE) as client:
        client.hear()
        wait_until_closed(source)


def test_nonsense_ends_a_stream_with_a_reason(path: Path, source: Source) -> None:
    with asking(path, op="count") as client:
        client.hear()
        client.socket.sendall(encode(["no", "request"]))
        while (reply := client.hear())["ok"]:
            pass
        assert "flat map" in reply["error"]
        assert client.hear() is None
    wait_until_closed(source)


def test_those_who_watch_do_not_lock_out_those_who_ask(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(control.MAX_STREAMS):
            client = stack.enter_context(asking(path, op="count"))
            assert client.hear()["data"]["n"] == 0
        assert query(path, {"op": "status"}) == "status"
        with asking(path, op="count") as refused:
            assert "others watch already" in refused.hear()["error"]
        client.socket.close()
        for attempt in itertools.count():
            with asking(path, op="count") as another:
                if another.hear()["ok"]:
                    return
            assert attempt < 100
            time.sleep(0.05)


# ---- pictures ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[float]]]:
    """The demo's scene, and when pictures of it were made."""
    world, made = World(), list[float]()
    take = world.desk.picture

    def picture(now: float, wall: float) -> Any:
        made.append(now)
        return take(12.0, wall)

    world.desk.picture = picture  # type: ignore[method-assign]
    pictures: list[Pictures] = []

    def answer(request: dict[str, Any]) -> dict[str, Any] | Replies:
        if request["op"] != "watch":
            return world.answer(request)
        if not pictures:
            pictures.append(Pictures(lambda: world.desk))
        return pictures[0].replies(msgspec.convert(request, Watch))

    path = tmp_path_factory.mktemp("watched") / "watched.sock"
    with serving(path, answer):
        yield path, made


def test_a_picture_is_what_the_queries_say(watched: tuple[Path, list[float]]) -> None:
    path, _ = watched
    with asking(path, op="watch") as client:
        data = client.hear()["data"]
    for key, op in (("apps", "apps"), ("containers", "ps")):
        assert sorted(data[key], key=lambda row: str(row["name"])) == query(path, {"op": op})
    assert [row["host"] for row in data["agents"]] == ["simulated"]
    assert data["status"]["state"] == "ok"


def test_one_picture_serves_all_who_watch(watched: tuple[Path, list[float]]) -> None:
    path, made = watched
    before = len(made)
    times: list[list[float]] = []

    def watch() -> None:
        with asking(path, op="watch", interval_s=MIN_INTERVAL_S) as client:
            times.append([client.hear()["data"]["at"] for _ in range(6)])

    threads = [threading.Thread(target=watch) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 20
    assert all(list(one) == sorted(set(one)) for one in times)  # a new one each time
    assert len(made) - before < 20 * 6 / 2


def test_a_container_is_explained_with_each_picture(watched: tuple[Path, list[float]]) -> None:
    path, _ = watched
    with asking(path, op="watch", interval_s=0.2) as client:
        row = client.hear()["data"]["containers"][0]
        client.ask(op="watch", interval_s=0.2, explain=row["id"], host=row["host"], limit=3)
        heard = [client.hear()["data"] for _ in range(6)]
        explained = [data["explain"] for data in heard if "explain" in data]
        assert len(explained) >= 2
        assert explained[0]["container"]["name"] == row["name"]
        assert len(explained[0]["decisions"]) == 3
        client.ask(op="watch", explain="nobody", host=row["host"])
        while (data := client.hear()["data"]).get("explain", data) is not None:
            pass
