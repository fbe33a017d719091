"""The report: its arithmetic, its pictures, and the command that writes it."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from escra_controller.cli import main
from escra_controller.events import Decision
from escra_controller.past import POINTS_AT_ONCE
from escra_controller.report import svg, words
from escra_controller.report.fetch import gather
from escra_controller.report.model import AppReport, Saving
from escra_controller.report.page import page
from escra_controller.report.picture import picture
from escra_controller.storage.values import ContainerRow
from tests.controller.recorded import MIB, asking, recorded, row
from tests.controller.test_cli import serving

# Recent for the history, and at a round instant.
NOW = float(int(time.time()) // 900 * 900)

Maker = Callable[[float], ContainerRow | None]


def report(path: Path, seconds: float = 600.0) -> AppReport:
    (app,) = gather(asking(path), None, NOW - seconds, NOW, NOW)
    return app


def instants(seconds: int, *makers: Maker) -> Iterator[list[ContainerRow]]:
    for at in range(5, seconds + 1, 5):
        made = [maker(NOW - seconds + at) for maker in makers]
        yield [each for each in made if each is not None]


def fleet(count: int, *, observed: bool = False) -> list[Maker]:
    return [lambda at, n=n: row(at, n, observed=observed) for n in range(count)]  # type: ignore[misc]


def change(n: int, rule: str, before: int, after: int, *, observed: bool = False) -> Decision:
    at = NOW - 300 + n
    return Decision(
        at, "shop", "host-0", f"web-{n}", n, "cpu", rule, "why", before, after, {}, observed=observed
    )


def test_what_was_saved_is_the_mean_over_the_whole_time(tmp_path: Path) -> None:
    """1.5 cores originally, 0.5 in force: the first saves a core all the time, the last for half of it."""

    def fixed(n: int, **more: Any) -> Maker:
        return lambda at: row(at, n, cpu_limit_milli=500.0, cpu_used_milli=250.0, **more)

    def later(at: float) -> ContainerRow | None:
        return fixed(2)(at) if at > NOW - 60 else None

    app = report(recorded(tmp_path, instants(120, fixed(0), fixed(1, cpu_original_milli=None), later)))
    assert [c.name for c in app.containers] == ["web-0", "web-1", "web-2"]
    assert app.span.length_s == 120
    saved = app.saved("cpu")
    assert saved.amount == pytest.approx(1.5)
    assert (saved.counted, saved.unlimited) == (2, 1)
    assert app.saved("memory").amount == pytest.approx(768 * MIB * 2.5)
    assert app.slack("cpu").amount == pytest.approx(0.25 * 2.5)
    assert words.headlines(app) == [
        "Held 1.5 cores and 1.9 GiB less than the limits these containers came with."
    ]
    assert "1 of 3 managed containers came without a CPU limit" in words.uncounted(app)


def test_no_row_is_lost_between_steps(tmp_path: Path) -> None:
    app = report(recorded(tmp_path, instants(600, lambda at: row(at, oom_kills=1))))
    (web,) = app.containers
    assert (web.covered_s, web.oom_kills, app.span.steps) == (600, 120, 120)
    assert None not in web.cpu.used


def test_observed_containers_say_what_escra_would_have_changed(tmp_path: Path) -> None:
    app = report(recorded(tmp_path, instants(600, *fleet(4, observed=True))))
    assert app.managed == []
    assert app.would_save("memory").amount == pytest.approx(4 * 256 * MIB)
    (sentence,) = words.headlines(app)
    assert re.fullmatch(
        r"Only observed: Escra would have held [0-9.]+ cores more and 1.0 GiB less than the present limits,"
        r" and raised 4 limits that throttled.",
        sentence,
    )
    (data,) = words.as_json([app])
    assert data["raised_when_throttled"] == 4
    assert {c["mode"] for c in data["containers"]} == {"observe"}


def test_containers_that_came_without_limits_are_said_to_be_uncounted(tmp_path: Path) -> None:
    def free(at: float) -> ContainerRow:
        return row(at, cpu_original_milli=None, memory_original_bytes=None)

    app = report(recorded(tmp_path, instants(60, free)))
    assert app.saved("cpu") == Saving(0.0, 0, 1)
    assert "came without limits" in words.headlines(app)[0]


def test_a_report_of_a_day_over_a_minute_of_data_is_about_that_minute(tmp_path: Path) -> None:
    path = recorded(tmp_path, instants(60, row))
    (app,) = gather(asking(path), None, NOW - 86400, NOW + 30, NOW + 30)
    assert 60 <= app.span.length_s <= 900
    assert len(app.containers) == 1
    (app,) = gather(asking(path), None, NOW - 3600, NOW + 30, NOW + 30)
    assert (app.span.length_s, app.total("cpu", "used").count(None)) == (60, 0)


def test_old_data_are_asked_for_in_the_steps_they_are_kept_in(tmp_path: Path) -> None:
    path = recorded(tmp_path, instants(600, row))
    (app,) = gather(asking(path), "shop", NOW - 600, NOW, NOW + 20 * 86400)
    assert app.span.step_s == 900


def test_troubles_are_shown_and_no_container_fills_the_list(tmp_path: Path) -> None:
    many = [change(0, "throttled", 100 + n, 900) for n in range(50)]
    found = [*many, change(1, "oom-kill", 500, 500), change(2, "shrink", 1000, 990, observed=True)]
    app = report(recorded(tmp_path, instants(600, row), found))
    shown = [(d["container"], d["rule"]) for d in app.decisions]
    assert shown == [("web-0", "throttled"), ("web-1", "oom-kill"), ("web-2", "shrink")]
    assert app.rules[0] == ("cpu", "throttled", 50)
    assert page([app], NOW, "1").count("would have</span>") == 1


class Elements(HTMLParser):
    """Start tags by name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: dict[str, list[dict[str, str | None]]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[2J"


def test_names_from_other_machines_are_text_and_nothing_else(tmp_path: Path) -> None:
    def evil(at: float) -> ContainerRow:
        return row(at, container=EVIL, host=EVIL, app=EVIL)

    found = [Decision(NOW - 9, EVIL, EVIL, EVIL, 1, "cpu", EVIL, EVIL, 1, 2)]
    app = report(recorded(tmp_path, instants(60, evil, lambda at: row(at, 1, app=EVIL)), found))
    html = page([app, app], NOW, EVIL)
    elements = Elements(html)
    assert elements.open == []
    assert not {"script", "img", "iframe", "object", "link"} & elements.tags.keys()
    assert all(not name.startswith("on") for tags in elements.tags.values() for tag in tags for name in tag)
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "\x1b" not in html
    ElementTree.fromstring(picture([app]))


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = page([report(recorded(tmp_path, instants(60, row)))], NOW, "1")
    for tags in Elements(html).tags.values():
        for tag in tags:
            assert not {"src", "data", "xlink:href", "action"} & tag.keys()
            assert (tag.get("href") or "#").startswith("#")
    assert "url(" not in html
    assert "@import" not in html
    for drawn in re.findall(r"<svg.*?</svg>", html):
        ElementTree.fromstring(drawn)


def test_axes_have_round_numbers_with_their_unit() -> None:
    def labels(scale: svg.Scale) -> list[str]:
        return [scale.label(n * scale.step) for n in range(round(scale.top / scale.step) + 1)]

    assert labels(svg.scale("cores", [1.3, None])) == ["0.0", "0.5", "1.0", "1.5"]
    assert labels(svg.scale("cores", [83])) == ["0", "25", "50", "75", "100"]
    assert labels(svg.scale("cores", [0.9])) == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert labels(svg.scale("bytes", [700 * MIB])) == ["0", "200 MiB", "400 MiB", "600 MiB", "800 MiB"]
    assert labels(svg.scale("share", [0.31])) == ["0%", "10%", "20%", "30%", "40%"]
    for largest in (0.0, 1e-6, 0.77, 12.0, 8e3, 3e12):
        for made in (
            svg.scale("cores", [largest]),
            svg.scale("bytes", [largest]),
            svg.scale("share", [min(1.0, largest)]),
        ):
            found = labels(made)
            assert 2 <= len(found) <= 6
            assert len(set(found)) == len(found)


def test_time_labels_never_are_too_many() -> None:
    for length in (5, 60, 600, 7200, 86400, 7 * 86400, 30 * 86400, 400 * 86400):
        ticks = svg.time_ticks(NOW - length, NOW, 5)
        assert 1 <= len(ticks) <= 6
        assert all(NOW - length <= at <= NOW for at, _ in ticks)


def test_a_report_over_a_hundred_containers_takes_no_time(tmp_path: Path) -> None:
    path = recorded(tmp_path, instants(1200, *fleet(50), *fleet(100, observed=True)[50:]))
    began = time.process_time()
    app = report(path, 1200)
    html = page([app], NOW, "1")
    took_s = time.process_time() - began
    print(f"{took_s:.2f} s, {len(html) >> 10} KiB")
    assert len(app.containers) == 100
    assert html.count("<tr>") > 100
    assert took_s < 2.0


def test_every_answer_is_a_bounded_piece(tmp_path: Path) -> None:
    ask = asking(recorded(tmp_path, instants(600, *fleet(100))))
    pieces: list[int] = []

    def counted(op: str, **arguments: Any) -> Any:
        data = ask(op, **arguments)
        if op == "points":
            pieces.append(len(data["rows"]))
        return data

    (app,) = gather(counted, None, NOW - 600, NOW, NOW)
    assert len(app.containers) == 100
    assert sum(pieces) == 100 * 120
    assert max(pieces) <= POINTS_AT_ONCE


# ---- the command -------------------------------------------------------------------------

Escra = Callable[..., Result]


@pytest.fixture
def escra(tmp_path: Path) -> Escra:
    path = recorded(tmp_path / "state", instants(120, row, lambda at: row(at, 1, observed=True)))
    ask = asking(path)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "ps":
            return {"ok": False, "error": f"no application {request['app']!r}", "code": 4}
        return {"ok": True, "data": ask(**request)}

    def invoke(*arguments: str) -> Result:
        with serving(tmp_path / "control.sock", answer):
            return CliRunner().invoke(main, [*arguments, "--socket", str(tmp_path / "control.sock")])

    return invoke


def test_the_command_writes_a_page_and_says_what_it_comes_to(escra: Escra, tmp_path: Path) -> None:
    result = escra("report", "-o", str(tmp_path / "x.html"))
    assert result.exit_code == 0, result.output
    assert "shop: Held " in result.stdout
    assert "shop: Only observed: Escra would have " in result.stdout
    assert result.stdout.endswith(f"written: {tmp_path / 'x.html'}\n")
    assert Elements((tmp_path / "x.html").read_text()).open == []
    assert escra("report", "shop", "-o", "-").stdout.startswith("<!DOCTYPE html>")


def test_report_json_has_the_documented_keys(escra: Escra) -> None:
    (app,) = json.loads(escra("report", "--json", "--since", "1h").stdout)
    assert {"name", "since", "until", "step_s", "headlines", "saved", "would_save", "slack"} <= app.keys()
    assert {"throttled_ratio", "oom_averted", "oom_kills", "containers", "rules", "decisions"} <= app.keys()
    assert {"cores", "counted", "unlimited"} <= app["saved"]["cpu"].keys()
    web, _ = app["containers"]
    assert {"original_cores", "limit_cores", "used_cores", "peak_cores", "would_cores"} <= web["cpu"].keys()
    assert {"original_bytes", "limit_bytes", "used_bytes", "peak_bytes"} <= web["memory"].keys()


def test_a_report_of_nobody_is_status_4_and_nonsense_is_2(escra: Escra, tmp_path: Path) -> None:
    assert escra("report", "nobody").exit_code == 4
    assert escra("report", "--since", "yesterday").exit_code == 2
    assert escra("report", "--since", "1h", "--until", "2h").exit_code == 2
    unwritable = escra("report", "-o", str(tmp_path / "no" / "x.html"))
    assert unwritable.exit_code == 1
    assert "cannot write" in unwritable.stderr


def test_the_picture_is_a_png(escra: Escra, tmp_path: Path) -> None:
    result = escra("report", "--png", str(tmp_path / "x.png"), "-o", str(tmp_path / "x.html"))
    if "a PNG needs a font" in result.stderr:
        assert result.exit_code == 1
        return
    assert result.exit_code == 0, result.output
    body = (tmp_path / "x.png").read_bytes()
    assert body.startswith(b"\x89PNG")
    # 1180 wide, drawn twice as fine.
    assert int.from_bytes(body[16:20]) == 2360


def test_without_the_renderer_the_error_says_what_to_install(
    escra: Escra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    result = escra("report", "--png", str(tmp_path / "x.png"))
    assert result.exit_code == 1
    assert "pip install 'escra[report]'" in result.stderr
    assert not (tmp_path / "x.png").exists()


def test_events_reach_back_into_the_store(tmp_path: Path) -> None:
    found = [change(n, "throttled", 100, 200 + n) for n in range(5)]
    ask = asking(recorded(tmp_path / "state", instants(10, row), found))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        # A controller that has just been started.
        return {"ok": True, "data": [] if request["op"] == "events" else ask(**request)}

    def lines(*arguments: str) -> list[Any]:
        with serving(tmp_path / "control.sock", answer):
            asked = ["events", "--json", *arguments, "--socket", str(tmp_path / "control.sock")]
            result = CliRunner().invoke(main, asked)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    assert [event["container"] for event in lines()] == [f"web-{n}" for n in range(5)]
    assert [event["container"] for event in lines("-n", "2")] == ["web-3", "web-4"]
    assert [event["after_cores"] for event in lines("--container", "web-2")] == [0.202]
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NOW - 298))
    assert [event["container"] for event in lines("--since", since)] == ["web-2", "web-3", "web-4"]
    assert [event["container"] for event in lines("--since", "2h", "--until", since)] == ["web-0", "web-1"]
