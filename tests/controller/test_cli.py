"""The command as people run it: against the production engine and a simulated host, over a real socket."""

import asyncio
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from escra_common.errors import EscraError
from escra_controller.cli import main
from escra_controller.control import Answer, control_socket, serve
from escra_controller.demo import virtual
from escra_controller.demo.scene import APP, Scene
from escra_controller.events import AgentLeft, SetLimit, Ticked
from escra_controller.queries import Desk, NoSuchThing

Escra = Callable[..., Result]
NOW = 12.0


class World:
    """Twelve seconds of the demo's scene, then an answer for everybody who asks."""

    def __init__(self) -> None:
        scene = Scene()
        self.host = virtual.build_host(scene)
        self.engine = virtual.start_engine(scene, self.host)
        self.asked: list[dict[str, Any]] = []
        for beat in range(1, round(NOW / virtual.BEAT_S) + 1):
            now = beat * virtual.BEAT_S
            self.host.advance(now)
            virtual.exchange(self.engine, self.host, self.host.samples() if beat % 2 else Ticked(), now)
        self.desk = Desk(self.engine, started_at=0.0)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        try:
            data, instructions = self.desk.answer(request, NOW, 1e9)
        except NoSuchThing as error:
            return {"ok": False, "error": str(error), "code": 4}
        except EscraError as error:
            return {"ok": False, "error": str(error), "code": 1}
        for instruction in instructions:
            if isinstance(instruction, SetLimit):
                self.host.obey(instruction)
        return {"ok": True, "data": data}


@contextmanager
def serving(path: Path, answer: Answer) -> Iterator[None]:
    """Serve in a thread, as another process would."""

    async def run(until: asyncio.Event, ready: threading.Event) -> None:
        server = asyncio.create_task(serve(listener, answer))
        ready.set()
        await until.wait()
        server.cancel()
        await asyncio.wait([server])

    loop, until, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    with control_socket(path) as listener:
        thread = threading.Thread(target=loop.run_until_complete, args=[run(until, ready)])
        thread.start()
        try:
            ready.wait(5.0)
            yield
        finally:
            loop.call_soon_threadsafe(until.set)
            thread.join()
            loop.close()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def socket_path(tmp_path: Path, world: World) -> Iterator[Path]:
    path = tmp_path / "controller.sock"
    with serving(path, world.answer):
        yield path


@pytest.fixture
def escra(socket_path: Path) -> Escra:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, env={"ESCRA_SOCKET": str(socket_path)})

    return invoke


def data(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_ps_json_has_the_documented_keys(escra: Escra) -> None:
    rows = data(escra("ps", "--json"))
    assert [row["name"] for row in rows] == ["api", "jobs", "web"]
    keys = {"id", "name", "app", "host", "cgroup", "state", "cpu", "memory", "oom_events", "oom_kills"}
    for row in rows:
        assert keys <= row.keys()
        assert {"limit_cores", "used_cores", "throttled_ratio"} <= row["cpu"].keys()
        assert {"limit_bytes", "used_bytes"} <= row["memory"].keys()
        assert row["state"] == "managed"
    assert sum(row["cpu"]["limit_cores"] for row in rows) <= 1.5


def test_apps_json_has_the_documented_keys(escra: Escra) -> None:
    (row,) = data(escra("apps", "--json"))
    assert {"name", "cpu", "memory", "containers", "hosts"} <= row.keys()
    assert {"limit_cores", "allocated_cores", "used_cores"} <= row["cpu"].keys()
    assert {"limit_bytes", "allocated_bytes", "used_bytes"} <= row["memory"].keys()
    assert row["cpu"]["limit_cores"] == 1.5
    assert (row["containers"], row["hosts"]) == (3, 1)


def test_agents_json_has_the_documented_keys(escra: Escra) -> None:
    (row,) = data(escra("agents", "--json"))
    assert {"host", "state", "cgroup_version", "containers", "last_seen_s", "version"} <= row.keys()
    assert row["host"] == "simulated"


@pytest.mark.parametrize("command", ["ps", "apps", "agents"])
def test_tables_have_a_header_and_a_row_per_thing(escra: Escra, command: str) -> None:
    result = escra(command)
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.isupper()
    assert len(rows) == {"ps": 3, "apps": 1, "agents": 1}[command]
    assert "\x1b" not in result.stdout


def test_ps_of_one_application(escra: Escra, world: World) -> None:
    assert len(data(escra("ps", APP, "--json"))) == 3
    assert world.asked == [{"op": "ps", "app": APP}]


def test_explain_says_why(escra: Escra) -> None:
    result = escra("explain", "jobs", "-n", "5")
    assert result.exit_code == 0
    assert "managed" in result.stdout
    assert "fair share 0.50" in result.stdout
    decisions = data(escra("explain", "jobs", "-n", "5", "--json"))["decisions"]
    assert len(decisions) == 5
    for decision in decisions:
        assert decision["cause"] in result.stdout


def test_events_are_everybodys_decisions_in_order(escra: Escra, world: World) -> None:
    shown = escra("events", APP, "-n", "30").stdout.splitlines()
    rows = [json.loads(line) for line in escra("events", APP, "-n", "30", "--json").stdout.splitlines()]
    assert len(rows) == 30
    assert len({row["container"] for row in rows}) == 3
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    for line, row in zip(shown[1:], rows, strict=True):
        assert f"{APP}/{row['container']}" in line
        assert line.endswith(row["cause"])
    answer = world.desk.answer({"op": "events", "after": rows[-2]["number"]}, NOW, 1e9)[0]
    assert [row["number"] for row in answer] == [rows[-1]["number"]]


def test_set_changes_the_limit_and_shows_it(escra: Escra, world: World) -> None:
    row = data(escra("set", APP, "--cpu", "1800m", "--memory", "2GiB", "--json"))
    assert row["cpu"]["limit_cores"] == 1.8
    assert row["memory"]["limit_bytes"] == 2 << 30
    assert world.engine.apps[APP].spec.cpu == 1800


def test_set_refused_changes_nothing(escra: Escra, world: World) -> None:
    result = escra("set", APP, "--cpu", "10m")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "floors" in result.stderr
    assert world.engine.apps[APP].spec.cpu == 1500


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", APP),
        ("set", APP, "--cpu", "many"),
        ("set", APP, "--memory", "-1"),
        ("ps", "--watch", "0"),
        ("explain",),
        ("frobnicate",),
        ("demo", "--seconds", "999"),
    ],
)
def test_wrong_usage_is_status_2(escra: Escra, world: World, arguments: tuple[str, ...]) -> None:
    result = escra(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert world.asked == []


def test_no_such_thing_is_status_4(escra: Escra) -> None:
    for arguments in (("explain", "nobody"), ("ps", "nobody"), ("events", "nobody")):
        result = escra(*arguments)
        assert result.exit_code == 4
        assert result.stdout == ""
        assert "'nobody'" in result.stderr


def test_no_controller_is_status_3(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["ps", "--json", "--socket", str(tmp_path / "none.sock")])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "systemctl start escra-controller" in result.stderr


def test_status_is_5_when_degraded(escra: Escra, world: World) -> None:
    assert escra("status").exit_code == 0
    world.engine.handle(AgentLeft("simulated", "silent for 3 s"), NOW)
    result = escra("status")
    assert result.exit_code == 5
    assert "degraded" in result.stdout
    assert "silent for 3 s" in result.stdout
    assert json.loads(escra("status", "--json").stdout)["state"] == "degraded"


def test_watch_appends_one_json_value_per_line(tmp_path: Path, world: World) -> None:
    def three_times(request: dict[str, Any]) -> dict[str, Any]:
        if len(world.asked) == 3:
            return {"ok": False, "error": "enough", "code": 1}
        return world.answer(request)

    path = tmp_path / "watched.sock"
    with serving(path, three_times):
        result = CliRunner().invoke(main, ["apps", "--json", "-w", "0.1", "--socket", str(path)])
    assert [json.loads(line)[0]["name"] for line in result.stdout.splitlines()] == [APP] * 3


@pytest.mark.parametrize(
    ("environment", "arguments", "coloured"),
    [
        ({"TERM": "xterm"}, (), True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, (), False),
        ({"TERM": "dumb"}, (), False),
        ({"TERM": "xterm"}, ("--no-color",), False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    socket_path: Path, environment: dict[str, str], arguments: tuple[str, ...], coloured: bool
) -> None:
    inherited = {key: value for key, value in os.environ.items() if key not in ("TERM", "NO_COLOR")}
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "escra_controller.cli", "ps", "--socket", str(socket_path), *arguments],
            env=inherited | environment,
            stdout=slave,
            check=True,
            timeout=30,
        )
        output = os.read(master, 1 << 16).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "managed" in output
    assert ("\x1b[" in output) is coloured


def test_help_documents_the_exit_status() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for part in ("3 the controller is not running", "4 no such", "5 running but degraded", "78"):
        assert part in text
