"""Keys and pictures change what is shown: as a person would see it, but without a terminal."""

from collections.abc import Iterable
from typing import Any

import pytest

from escra_controller.top.cells import width_of
from escra_controller.top.drawing import draw
from escra_controller.top.model import HELP, Top
from tests.top.pictures import container, picture


def shown(top: Top, width: int = 80, height: int = 24) -> list[str]:
    return ["".join(text for text, _ in line) for line in draw(top, width, height)]


def press(top: Top, keys: Iterable[str]) -> None:
    for key in keys:
        top.press(key, key if len(key) == 1 else None)


def rows(top: Top) -> list[str]:
    """The names listed, in order."""
    return [line.split()[0] for line in (row[2:] for row in shown(top)[3:-1]) if line.strip()]


@pytest.fixture
def top() -> Top:
    top = Top()
    top.take(
        picture(
            container("web", cpu=0.9),
            container("api", cpu=0.1, memory=50 << 20),
            container("nightly", "jobs", "beta", cpu=0.4),
        )
    )
    return top


def test_the_lists(top: Top) -> None:
    assert rows(top) == ["web", "nightly", "api"]
    press(top, "1")
    assert rows(top) == ["shop", "jobs"]
    press(top, "3")
    assert rows(top) == ["alpha", "beta"]
    press(top, ["tab"])
    assert rows(top) == ["shop", "jobs"]


def test_sorting_is_shown(top: Top) -> None:
    assert any("by CPU ▼" in line for line in shown(top))
    press(top, "m")
    assert rows(top) == ["api", "nightly", "web"]
    assert any("by memory ▼" in line for line in shown(top))
    press(top, "m")
    assert any("by memory ▲" in line for line in shown(top))
    press(top, "nr")
    assert rows(top) == ["web", "nightly", "api"]
    for _ in range(9):
        press(top, "s")
    assert top.sort == "name"


def test_a_filter_is_typed_and_ended(top: Top) -> None:
    press(top, ["slash", "q", "W", "backspace", "backspace", "w", "e"])
    assert rows(top) == ["web"]
    assert "filter: we" in shown(top)[-1]
    press(top, ["enter"])
    assert "filter: we (1 of 3)" in shown(top)[1]
    press(top, ["escape"])
    assert len(rows(top)) == 3
    press(top, ["slash", "x"])
    assert "Nothing has x" in shown(top)[3].replace("  ", " ") or any(
        "Nothing has x" in line for line in shown(top)
    )


def test_the_chosen_line_stays_on_its_item(top: Top) -> None:
    press(top, ["down"])
    items = top.items()
    assert items[top.cursor(items)].name == "nightly"
    top.take(picture(container("nightly", "jobs", "beta", cpu=5.0), container("web"), container("api")))
    items = top.items()
    assert items[top.cursor(items)].name == "nightly"
    top.take(picture(container("web")))
    assert top.cursor(top.items()) == 0


def test_from_an_application_to_its_containers_and_back(top: Top) -> None:
    press(top, ["1", "down", "enter"])
    assert rows(top) == ["nightly"]
    assert "application jobs" in shown(top)[1]
    press(top, ["escape"])
    items = top.items()
    assert (top.kind, items[top.cursor(items)].name) == ("apps", "jobs")


def explained(name: str, host: str, cause: str) -> dict[str, Any]:
    decision = {
        "at": -3.0,
        "resource": "cpu",
        "rule": "shrink",
        "cause": cause,
        "before_cores": 1.0,
        "after_cores": 0.5,
    }
    about = {"id": f"id-of-{name}", "host": host}
    return {"explain": {"container": about, "cpu": {}, "memory": {}, "decisions": [decision]}}


def test_a_containers_decisions(top: Top) -> None:
    press(top, ["enter"])
    assert top.explaining == ("id-of-web", "alpha")
    assert any("Asking for its decisions" in line for line in shown(top))
    top.take(explained("api", "alpha", "of another"))
    top.take(explained("web", "alpha", "its own"))
    assert any("shrink" in line and line.rstrip().endswith("its own") for line in shown(top))
    top.take(picture(container("api")))
    assert any("has gone" in line for line in shown(top))
    press(top, ["escape"])
    assert top.explaining is None


def test_a_pause_loses_nothing(top: Top) -> None:
    press(top, ["space"])
    top.take(picture(container("new")))
    assert rows(top) == ["web", "nightly", "api"]
    assert "PAUSED" in shown(top)[0]
    press(top, ["space"])
    assert rows(top) == ["new"]


def test_a_lost_connection_greys_the_last_picture(top: Top) -> None:
    top.lost = "the controller is not running"
    lines = draw(top, 80, 24)
    assert lines[0][0] == ("no connection", "bad")
    assert {look for line in lines[1:] for _, look in line} <= {"dim", "plain"}
    assert rows(top) == ["web", "nightly", "api"]
    top.take(picture(container("web")))
    assert shown(top)[0].startswith("escra")


def test_help_names_every_key(top: Top) -> None:
    press(top, ["question_mark"])
    text = "\n".join(shown(top))
    for keys, _ in HELP:
        assert keys in text
    press(top, ["x"])
    assert top.mode == "list"
    press(top, ["q"])
    assert top.ended


def test_problems_are_in_the_first_line(top: Top) -> None:
    top.take(picture(container("web"), problems=("agent beta is not connected: silent", "another")))
    assert "degraded" in shown(top, 160)[0]
    assert "agent beta is not connected: silent (+1: escra status)" in shown(top, 160)[0]


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (20, 5), (80, 24), (200, 60)])
def test_every_screen_is_as_large_as_the_terminal(top: Top, size: tuple[int, int]) -> None:
    width, height = size
    hostile = [container(f"倉庫{n}\x1b[2J\n", cpu_limit=None, memory_limit=None) for n in range(300)]
    for screen in (Top(), top):
        for key in ("1", "2", "3", "question_mark", "x", "slash", "enter", "2", "enter", "end"):
            screen.press(key)
            lines = shown(screen, width, height)
            assert [width_of(line) for line in lines] == [width] * height
            assert all(line.isprintable() for line in lines)
        top.take(picture(*hostile))


def test_a_long_list_scrolls_to_what_is_chosen(top: Top) -> None:
    top.take(picture(*(container(f"c{n:03d}", cpu=0.1) for n in range(300))))
    press(top, "n")
    assert "c000" in rows(top)
    press(top, ["end"])
    assert rows(top)[-1] == "c299"
    press(top, ["home", "pagedown"])
    items = top.items()
    assert items[top.cursor(items)].name == "c010"
    assert "c010" in rows(top)
