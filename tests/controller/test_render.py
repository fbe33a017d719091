import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_controller import render, views
from escra_controller.render import Cell, Column, bar, clean, sparkline, table

COLUMNS = (Column("NAME", flexible=True), Column("STATE"), Column("LIMIT", right=True))
ROW = {
    "id": "4f1a",
    "name": "checkout-7f9c5d6b8-x2x4z",
    "app": "shop",
    "host": "rack7-node12.example.net",
    "cgroup": "/docker/4f1a",
    "state": "new",
    "problem": "",
    "cpu": {"limit_cores": None, "used_cores": 0.4321, "throttled_ratio": 0.25},
    "memory": {"limit_bytes": 512 << 20, "used_bytes": None},
    "oom_events": 0,
    "oom_kills": 0,
}


@pytest.mark.parametrize("module", [render, views])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_table_aligns_text_left_and_numbers_right() -> None:
    assert table(COLUMNS, [["web", "managed", "1.50"], ["checkout", "new", "max"]]) == [
        "NAME      STATE    LIMIT",
        "web       managed   1.50",
        "checkout  new        max",
    ]


def test_colour_does_not_count_as_width() -> None:
    rows: list[list[Cell | str]] = [["web", Cell("new", "warn"), "1.50"]]
    painted = table(COLUMNS, rows, paint=lambda text, tone: f"<{tone}:{text}>")
    assert painted[1] == "web   <warn:new>     1.50"


def test_a_table_that_is_too_wide_loses_from_its_names_only() -> None:
    lines = table(COLUMNS, [["a-very-long-container-name", "managed", "1.50"]], width=30)
    assert lines[1] == "a-very-long-c…  managed   1.50"
    assert max(map(len, lines)) <= 30


def test_a_pipe_sees_whole_names() -> None:
    assert "rack7-node12.example.net" in views.ps([ROW])[1]


def test_ps_fits_a_terminal_of_80_columns() -> None:
    lines = views.ps([ROW, ROW | {"state": "unknown-app"}], width=80)
    assert max(map(len, lines)) <= 80
    assert "not yet managed" in lines[1]


@given(st.text())
def test_no_name_can_steer_the_terminal(name: str) -> None:
    assert clean(name).isprintable()
    assert "\x1b" not in "".join(views.ps([ROW | {"name": name, "host": name}]))


@given(used=st.floats(0, 100), limit=st.floats(0, 100), top=st.floats(0.1, 100), width=st.integers(1, 200))
def test_a_bar_is_always_as_wide_as_asked(used: float, limit: float, top: float, width: int) -> None:
    assert len(bar(used, limit, top, width)) == width


@given(st.lists(st.floats(0, 1000)), st.floats(0.1, 100))
def test_a_sparkline_has_one_character_per_value(values: list[float], top: float) -> None:
    assert len(sparkline(values, top)) == len(values)
    assert sparkline(values, top, ascii_only=True).isascii()


def test_explain_tells_who_changed_what_when_and_why() -> None:
    decision = {
        "at": 1000.0,
        "resource": "cpu",
        "rule": "throttled",
        "cause": "throttled in 2 of 3 periods",
        "before_cores": None,
        "after_cores": 0.8,
        "numbers": {},
    }
    standing = {"floor_cores": 0.05, "ceiling_cores": None, "fair_cores": 0.5, "counted_cores": 0.8}
    grown = {
        "at": 1002.0,
        "resource": "memory",
        "rule": "grow",
        "cause": "its tasks wait for memory",
        "before_bytes": 64 << 20,
        "after_bytes": 96 << 20,
        "numbers": {},
    }
    memory = {
        "floor_bytes": 16 << 20,
        "ceiling_bytes": 1 << 30,
        "fair_bytes": None,
        "counted_bytes": 104 << 20,
        "headroom_bytes": 8 << 20,
    }
    data = {
        "container": ROW | {"state": "managed"},
        "cpu": standing,
        "memory": memory,
        "decisions": [decision, grown],
    }
    text = "\n".join(views.explain(data, now=1065.0))
    for part in (
        "managed",
        "floor 0.05",
        "ceiling max",
        "fair share 0.50",
        "1m05s",
        decision["cause"],
        grown["cause"],
    ):
        assert str(part) in text
    assert re.search(r"cpu +throttled +max +0\.80", text)
    assert re.search(r"memory +grow +64\.0MiB +96\.0MiB", text)
    assert "ceiling 1.0GiB" in text
    assert "counted in the pool 104.0MiB, 8.0MiB of it headroom" in text


def test_events_say_who_what_when_and_why() -> None:
    row = {"number": 7, "app": "shop", "container": "web\x1b[2J", "host": "h1", "at": 1000.5, "numbers": {}}
    denied = {"resource": "memory", "rule": "denied", "before_bytes": 1 << 30, "after_bytes": 1 << 30}
    lines = views.events([row | denied | {"cause": "shop has 0B left"}])
    assert lines[0].split()[:2] == ["TIME", "CONTAINER"]
    assert "\x1b" not in lines[1]
    assert re.search(r"shop/web.* memory +denied +1\.0GiB +1\.0GiB +shop has 0B left$", lines[1])


def test_explain_of_an_unmanaged_container_says_what_is_wrong() -> None:
    row = ROW | {"state": "invalid", "problem": "escra.cpu.max: 'lots' is not an amount of CPU"}
    lines = views.explain({"container": row, "cpu": {}, "memory": {}, "decisions": []}, now=0.0)
    assert any("'lots' is not an amount of CPU" in line for line in lines)
    assert lines[-1] == "No decision about its limits yet."


def test_status_lists_every_problem() -> None:
    data = {
        "version": "1",
        "uptime_s": 7384,
        "state": "degraded",
        "problems": ["agent h2 is not connected: silent", "web on h1: bad label"],
        "apps": 1,
        "agents": 1,
        "containers": 3,
    }
    assert views.status(data) == [
        "escra 1: degraded, up 2h03m",
        "  1 application, 3 containers, 1 agent",
        "  problem: agent h2 is not connected: silent",
        "  problem: web on h1: bad label",
    ]
