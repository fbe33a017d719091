"""Recordings, and what would have happened under other rules."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from escra_common.messages import CpuLimit
from escra_controller import recording
from escra_controller.cli import main
from escra_controller.events import Event
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings
from escra_controller.recorder import MAX_BUFFERED_BYTES, RecorderError, Recorders
from escra_controller.replay import Variant, compare
from tests.controller.kernels import PERIOD_USEC, Memory
from tests.controller.world import MIB, World, spec


class RecordedWorld(World):
    """A recording of all that its engine hears, fetched as a client would."""

    def start(self) -> None:
        self.recorders = Recorders()
        super().start()

    def handle(self, event: Event) -> None:
        super().handle(event)
        self.recorders.hear(event, self.now)

    def begin(self, app: str = "") -> int:
        request = {"op": "record", "app": app}
        return int(self.recorders.answer(request, self.engine, MemorySettings(), self.now, 1e9)["number"])

    def fetch(self, number: int, *, last: bool = False) -> bytes:
        request = {"op": "recorded", "number": number, "last": int(last)}
        data = self.recorders.answer(request, self.engine, MemorySettings(), self.now, 1e9)["data"]
        assert isinstance(data, bytes)
        return data

    def record(self, seconds: float, app: str = "") -> bytes:
        number, parts = self.begin(app), []
        for _ in range(round(seconds)):
            self.run(1)
            parts.append(self.fetch(number))
        return b"".join([*parts, self.fetch(number, last=True)])


def working() -> RecordedWorld:
    w = RecordedWorld(spec(cpu=2000, memory=1024 * MIB), spec("blog", cpu=1000))
    w.join("h1")
    limit = CpuLimit(PERIOD_USEC, PERIOD_USEC)
    w.add("h1", 300, original=limit, in_force=limit, memory=Memory(64 * MIB, want=64 * MIB, limit=512 * MIB))
    w.add("h1", 1200, original=limit, in_force=limit)
    w.add("h1", 100, app="blog")
    return w


@pytest.fixture(scope="module")
def recorded() -> bytes:
    w = working()
    w.run(2)
    return w.record(20)


def escra(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["replay", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path: Path, recorded: bytes) -> Path:
    path = tmp_path / "shop.rec"
    path.write_bytes(recorded)
    return path


def runs(*arguments: str | Path) -> dict[str, dict[str, float]]:
    status, output = escra(*arguments, "--json")
    assert status == 0, output
    return {row["name"]: row for row in json.loads(output)["runs"]}


def test_the_same_file_and_options_print_the_same_bytes(file: Path) -> None:
    options = (file, "--policy", "escra", "--policy", "static", "--set", "upsilon=0.5")
    assert escra(*options) == escra(*options)
    assert escra(*options, "--json") == escra(*options, "--json")


def test_rules_are_compared_with_what_happened(file: Path) -> None:
    found = runs(file, "--policy", "escra", "--policy", "static")
    assert list(found) == ["recorded", "escra", "static"]
    assert [row["omega_violations"] for row in found.values()] == [None, 0, 0]
    # The light one keeps a whole core that it does not use, and the heavy one lacks 0.2.
    assert found["static"]["slack_mean_cores"] > 2 * found["escra"]["slack_mean_cores"]
    assert found["static"]["throttled_ratio"] > 0.2
    assert found["escra"]["throttled_ratio"] < 0.1
    assert found["static"]["limit_changes"] < found["escra"]["limit_changes"]


def test_another_omega(file: Path, tmp_path: Path) -> None:
    status, output = escra(file, "--cpu", "0.5")
    assert status == 2
    assert "recorded are: blog, shop" in output
    only = tmp_path / "only.rec"
    only.write_bytes(working().record(10, app="shop"))
    found = runs(only, "--cpu", "0.5")
    assert found["escra"]["most_allocated_cores"] <= 0.5
    assert found["escra"]["throttled_ratio"] > 0.5
    assert found["escra"]["omega_violations"] == 0


def test_memory_that_would_have_run_out() -> None:
    w = RecordedWorld(spec(memory=1024 * MIB))
    w.join("h1")
    kernel = w.add("h1", 0, memory=Memory(64 * MIB, want=64 * MIB, limit=128 * MIB))
    number, parts = w.begin(), []
    for want in (100, 300, 500):
        w.run(2)
        w.grow("h1", kernel, want * MIB)
        w.settle()
        parts.append(w.fetch(number))
    w.run(2)
    _, records = recording.read([*parts, w.fetch(number, last=True)], "it")
    rows = compare(
        records,
        [
            Variant("as it is", Settings(), MemorySettings()),
            Variant("less", Settings(), MemorySettings(), memory_omega=256 * MIB),
        ],
    )
    assert [row["oom_kills"] for row in rows] == [0, 0, 1]
    assert [row["omega_violations"] for row in rows] == [None, 0, 0]


def test_a_recording_of_one_application_knows_no_other() -> None:
    head, records = recording.read([working().record(3, app="blog")], "it")
    assert head.app == "blog"
    assert list(recording.apps_of(records)) == ["blog"]
    assert "shop" not in str(records)


def test_a_recording_comes_back_as_it_was(recorded: bytes) -> None:
    head, records = recording.read([recorded[i : i + 7] for i in range(0, len(recorded), 7)], "it")
    assert head.policy == Settings()
    assert head.memory == MemorySettings()
    again = [recording.record(each.at, each.event) for each in records]
    assert b"".join(part for part in again if part) in recorded


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "no recording of `escra record`"),
        (lambda data: b"\x7fELF" * 100, "no recording of `escra record`"),
        (lambda data: data[:-1], "breaks off after record"),
        (lambda data: data[: len(data) // 2], "breaks off after record"),
        (lambda data: data + data, "damaged: record"),
        (lambda data: data.replace(b"Ticked", b"Tocked", 1), "damaged: record"),
        (
            lambda data: data.replace(b"escra recording", b"other recording", 1),
            "no recording of `escra record`",
        ),
    ],
)
def test_what_cannot_be_read_is_said(file: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    file.write_bytes(damage(file.read_bytes()))
    status, output = escra(file)
    assert status == 1
    assert said in output
    assert str(file) in output


@pytest.mark.parametrize("option", ["upsilon", "upsilo=1", "upsilon=-1", "name=static", "memory.margin=x"])
def test_what_cannot_be_set_is_refused(file: Path, option: str) -> None:
    assert escra(file, "--set", option)[0] == 2


def test_settings_of_memory_can_be_set(file: Path) -> None:
    assert escra(file, "--set", "memory.margin=0.5", "--set", "memory.margin_min=32MiB")[0] == 0


def test_a_recording_that_nobody_fetches_ends() -> None:
    w = working()
    number = w.begin()
    w.run(11)
    with pytest.raises(RecorderError, match="was not fetched"):
        w.fetch(number)


def test_a_recording_that_grows_too_large_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BUFFERED_BYTES > 1 << 20
    monkeypatch.setattr("escra_controller.recorder.MAX_BUFFERED_BYTES", 4096)
    w = working()
    number = w.begin()
    w.run(5)
    with pytest.raises(RecorderError, match="more came than was fetched"):
        w.fetch(number)


def test_only_so_many_recordings_at_once() -> None:
    w = working()
    numbers: Sequence[int] = [w.begin() for _ in range(4)]
    with pytest.raises(RecorderError, match="under way already"):
        w.begin()
    w.fetch(numbers[0], last=True)
    w.begin()
