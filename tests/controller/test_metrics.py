"""What Prometheus reads: the numbers of `escra ps`, in slices, over a port that nobody can block."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import scrape
from benchmarks.pair import free_port
from escra_common.configfile import AddressOrOff
from escra_common.expiry import Expiry
from escra_controller.engine import Engine
from escra_controller.events import Decision
from escra_controller.metrics import exporter, series
from escra_controller.metrics.exporter import MAX_CLIENTS, Exporter
from escra_controller.metrics.gathering import gather
from escra_controller.metrics.page import SLICE, Page, process, slices
from escra_controller.metrics.series import Family, Ticks
from escra_controller.metrics.tally import Tally
from escra_controller.rows import app_row, container_row
from tests.controller.kernels import Memory
from tests.controller.world import MIB, World, spec

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values(text: bytes) -> Values:
    """As a reader understands the page."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: Values, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def read(engine: Engine, tally: Tally | None = None, now: float = 0.0) -> Values:
    steps = gather(engine, tally or Tally(), Ticks("ctl", 10, 2), now, 1000.0)
    return values(b"".join(part for step in steps for family in step for part in slices(family)))


@pytest.fixture
def world() -> World:
    w = World(spec(memory=1 << 30))
    for host in ("h1", "h2"):
        w.join(host)
        w.add(host, 400, memory=Memory(used=100 * MIB))
    w.settle()
    w.run(1)
    return w


def decision(rule: str, before: int | None, after: int | None, **more: Any) -> Decision:
    about: dict[str, Any] = {"resource": "memory", "app": "shop", "numbers": {}} | more
    return Decision(
        at=1.0, host="h1", container="web", key=7, rule=rule, cause="", before=before, after=after, **about
    )


# ---- numbers -----------------------------------------------------------------------


def test_the_numbers_are_those_of_ps_and_apps(world: World) -> None:
    found = read(world.engine)
    for member in world.engine.members.values():
        row = container_row(world.engine, member)
        labels = {"app": "shop", "container": row["name"], "host": row["host"]}
        for name in ("limit_cores", "used_cores", "throttled_ratio"):
            assert value(found, f"escra_container_cpu_{name}", **labels) == row["cpu"][name] is not None
        for name in ("limit_bytes", "used_bytes", "needed_bytes"):
            assert value(found, f"escra_container_memory_{name}", **labels) == row["memory"][name]
    row = app_row(world.engine.apps["shop"])
    for resource, unit in (("cpu", "cores"), ("memory", "bytes")):
        for part in ("limit", "allocated", "reserved", "used"):
            name = f"escra_app_{resource}_{part}_{unit}"
            assert value(found, name, app="shop") == row[resource][f"{part}_{unit}"], name
    assert value(found, "escra_app_cpu_used_cores", app="shop") > 0.5
    assert value(found, "escra_tick_late_total", daemon="controller", host="ctl") == 2
    assert value(found, "escra_containers", app="shop", host="h1", state="managed") == 1


def test_of_a_host_that_is_away_only_what_still_holds_is_told(world: World) -> None:
    world.part("h2")
    found = read(world.engine)
    away = {
        name for name, labels in found if ("host", "h2") in labels and name.startswith("escra_container_")
    }
    assert away == {"escra_container_cpu_limit_cores", "escra_container_memory_limit_bytes"}
    assert value(found, "escra_agent_connected", host="h2") == 0
    assert value(found, "escra_agent_connected", host="h1") == 1
    assert value(found, "escra_containers", app="shop", host="h2", state="lost") == 1


def test_a_container_that_goes_while_the_page_is_written_is_left_out(world: World) -> None:
    kernel = world.add("h2", app="other")
    steps = gather(world.engine, Tally(), Ticks("ctl", 1, 0), world.now, 0.0)
    for _ in range(5):
        next(steps)  # the fifth looked at the containers of shop
    world.remove("h2", kernel)
    families = [family for step in steps for family in step]
    assert {labels[0] for family in families for labels in family.samples} == {"shop"}


def test_of_two_containers_with_one_name_the_later_is_told(world: World) -> None:
    rows = [container_row(world.engine, m) for m in world.engine.members.values() if m.key.host == "h1"]
    later = {**rows[0], "cpu": {**rows[0]["cpu"], "limit_cores": 7.25}}
    (family, *_) = series.containers([*rows, later])
    assert list(family.samples.values()) == [7.25]


def test_names_from_other_machines_cannot_break_a_line() -> None:
    strange = 'a"b\\c\nescra_up 1'
    family = series.gauge("escra_x", "Text.", ("name",), {(strange,): 1.0})
    assert values(b"".join(slices(family))) == {("escra_x", frozenset({("name", strange)})): 1.0}


def test_certificates_and_the_store() -> None:
    ends = Expiry("this controller's certificate (/c.pem)", 0.0, 5e9)
    text = b"".join(
        part
        for family in series.controller(series.Standing("1.2", "leader", 3, 2, False, 9, [ends]))
        for part in slices(family)
    )
    found = values(text)
    name = "escra_certificate_expiry_timestamp_seconds"
    assert value(found, name, certificate="this controller's certificate (/c.pem)") == 5e9
    assert [value(found, "escra_role", role=role) for role in ("leader", "standby")] == [1, 0]
    assert value(found, "escra_build_info", version="1.2") == 1
    assert [value(found, f"escra_{n}") for n in ("problems", "store_ok", "store_dropped_rows_total")] == [
        2,
        0,
        9,
    ]


def test_this_process() -> None:
    found = {family.name: family.samples[()] for family in process(123.0)}
    assert found["process_start_time_seconds"] == 123
    assert 1 << 20 < found["process_resident_memory_bytes"] < 1 << 40
    assert 0 < found["process_open_fds"] < found["process_max_fds"]


# ---- counting ----------------------------------------------------------------------


def test_what_counts_as_what() -> None:
    tally = Tally()
    for each in (
        decision("grow", MIB, 2 * MIB),
        decision("grow", MIB, 2 * MIB, observed=True),  # it would have been so
        decision("grow", 2 * MIB, 2 * MIB),  # the kernel held what it had
        decision("denied", MIB, MIB),
        decision("refused", MIB, MIB),
        decision("oom-kill", MIB, MIB, numbers={"kills": 3.0}),
        decision("throttled", 100, 200, resource="cpu"),
        decision("grow", None, MIB, app="other"),
    ):
        tally.count(each)
    assert tally.changes == {
        ("shop", "memory", "grow"): 1,
        ("shop", "cpu", "throttled"): 1,
        ("other", "memory", "grow"): 1,
    }
    assert (tally.denied, tally.kills) == ({("shop",): 1}, {("shop",): 3})
    assert tally.refused == {("shop", "memory"): 1}


def test_a_rescue_and_a_kill_of_the_engine_are_counted() -> None:
    w = World(spec(memory=128 * MIB))
    w.join("h1")
    kernel = w.add("h1", 100, memory=Memory(used=20 * MIB))
    w.settle()
    w.run(1)
    w.grow("h1", kernel, 60 * MIB)
    w.run(2)
    w.grow("h1", kernel, 500 * MIB)
    w.run(2)
    tally = Tally()
    for each in w.decisions:
        tally.count(each)
    assert tally.kills["shop",] == kernel.memory.kills >= 1
    found = read(w.engine, tally, w.now)
    averted = value(found, "escra_oom_averted_total", app="shop")
    assert averted == w.engine.apps["shop"].oom_averted >= 1
    assert value(found, "escra_oom_kills_total", app="shop") == kernel.memory.kills


def test_counters_of_trouble_begin_at_0(world: World) -> None:
    found = read(world.engine)
    for name in ("escra_oom_averted_total", "escra_oom_kills_total", "escra_memory_denied_total"):
        assert value(found, name, app="shop") == 0


# ---- slices ------------------------------------------------------------------------


def many(n: int) -> Family:
    return series.counter("escra_x_total", "Text.", ("n",), {(str(i),): float(i) for i in range(n)})


@pytest.mark.parametrize("n", [0, 1, SLICE, SLICE + 1, 5 * SLICE])
def test_slices_make_the_same_page(n: int) -> None:
    parts = list(slices(many(n)))
    (whole,) = slices(many(n), n + 1)
    assert b"".join(parts) == whole
    assert len(parts) == max(1, -(-n // SLICE))
    assert whole.count(b"# TYPE escra_x_total counter\n") == 1


def turns_while(work: Coroutine[Any, Any, bytes]) -> int:
    """How often something else had its turn."""

    async def main() -> int:
        task, turns = asyncio.create_task(work), 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    return asyncio.run(main())


def test_a_long_page_leaves_others_their_turn() -> None:
    page = Page(lambda: iter([[many(20 * SLICE)], [many(20 * SLICE)]]))
    assert turns_while(page.read()) >= 40


def test_many_readers_cost_one_page() -> None:
    written = 0

    def gathered() -> Iterator[list[Family]]:
        nonlocal written
        written += 1
        yield [many(10 * SLICE)]

    page = Page(gathered)

    async def main() -> set[bytes]:
        return set(await asyncio.gather(*(page.read() for _ in range(50))))

    assert len(asyncio.run(main())) == 1
    assert written == 1


def test_the_benchmark_measures() -> None:
    said = scrape.measure(quick=True, say=lambda line: None)
    assert said["scrapes"] > 1
    assert said["page_bytes"] > 200 * 7 * 50
    assert said["tick_late_beside_scrapes_ms"]["events"] == said["tick_late_alone_ms"]["events"] > 10


# ---- the port ----------------------------------------------------------------------


async def page_of_one_line() -> bytes:
    return b"escra_x 1\n"


def address() -> AddressOrOff:
    return AddressOrOff(f"127.0.0.1:{free_port()}")


def with_exporter(
    client: Callable[[Exporter, int], Awaitable[None]],
    at: AddressOrOff,
    page: Callable[[], Awaitable[bytes]] = page_of_one_line,
) -> None:
    async def main() -> None:
        served = Exporter(at, page)
        task = asyncio.create_task(served.run())
        try:
            async with asyncio.timeout(20):
                await client(served, at.port if at else 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


async def until(met: Callable[[], bool]) -> None:
    while not met():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:  # not yet
            await asyncio.sleep(0.01)


async def ask(port: int, request: bytes) -> tuple[bytes, bytes]:
    reader, writer = await connect(port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head, body


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK", b"escra_x 1\n"),
        (b"GET /metrics?x=1 HTTP/1.0", b"200 OK", b"escra_x 1\n"),
        (b"HEAD /metrics HTTP/1.1", b"200 OK", b""),
        (b"GET / HTTP/1.1", b"404 Not Found", b"the page is at /metrics\n"),
        (b"POST /metrics HTTP/1.1", b"405 Method Not Allowed", b"GET /metrics is all there is\n"),
        (b"\x16\x03\x01\x02", b"400 Bad Request", b"GET /metrics is all there is\n"),
    ],
)
def test_what_is_asked_and_answered(request_line: bytes, status: bytes, body: bytes) -> None:
    async def client(_: Exporter, port: int) -> None:
        head, got = await ask(port, request_line + b"\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert got == body

    with_exporter(client, address())


def test_those_who_say_nothing_give_way() -> None:
    async def client(_: Exporter, port: int) -> None:
        silent = [await connect(port) for _ in range(MAX_CLIENTS + 5)]
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0].startswith(b"HTTP/1.1 200 ")
        oldest = silent[0][0]
        assert await oldest.read() == b""  # the end
        for mine in silent:
            mine[1].close()

    with_exporter(client, address())


def test_one_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE_S", 0.3)

    async def huge() -> bytes:
        return bytes(64 << 20)

    async def client(served: Exporter, port: int) -> None:
        writer = (await connect(port))[1]
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: bool(served._clients))
        await until(lambda: not served._clients)
        writer.close()

    with_exporter(client, address(), huge)


def test_a_request_without_end_is_cut_off() -> None:
    async def client(_: Exporter, port: int) -> None:
        reader, writer = await connect(port)
        writer.write(bytes(1 << 20))
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        writer.close()

    with_exporter(client, address())


def test_a_port_that_is_taken_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "AGAIN_S", 0.05)
    taken = socket.create_server(("127.0.0.1", 0))
    at = AddressOrOff(f"127.0.0.1:{taken.getsockname()[1]}")

    async def client(served: Exporter, port: int) -> None:
        await until(lambda: bool(served.problem))
        assert served.problem == (
            f"metrics: cannot listen on {at}: another program listens there; give [listen] metrics another "
            'address, or "" for none'
        )
        taken.close()
        head, _ = await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert served.problem == ""

    with_exporter(client, at)


def test_switched_off_it_ends_at_once() -> None:
    async def main() -> None:
        await Exporter(AddressOrOff(""), page_of_one_line).run()

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 5
