"""``escra top`` as a person sees it: in a real terminal, against a real controller."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.needs import unavailable
from tests.terminal import Terminal, terminal, whats_missing
from tests.top.conftest import Scene

ESCRA = str(Path(sys.executable).with_name("escra"))
COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-7]|9[0-7]|4[0-7]|38|48)[;m]")
NAMES = {"checkout", "nightly", "web-2", "red?[31m"}

Open = Callable[..., Terminal]


@pytest.fixture
def open_top(scene: Scene, tmp_path: Path) -> Iterator[Open]:
    """Start ``escra top`` in a terminal of so many columns and lines, and wait for its first picture."""
    if reason := whats_missing():
        unavailable("terminal", reason)
    ended: list[Terminal] = []

    def start(width: int = 80, height: int = 24, *options: str, **environment: str) -> Terminal:
        window = Terminal(tmp_path / f"tmux{len(ended)}.sock", width, height, environment)
        ended.append(window)
        window.run([ESCRA, "top", "--socket", str(scene.pair.control), "-d", "0.3", *options])
        window.wait_until(lambda lines: set(order(lines)) == NAMES, "all four containers")
        return window

    try:
        yield start
    finally:
        for window in ended:
            window.end()


def order(lines: list[str]) -> list[str]:
    """The containers in the order in which they stand on the screen."""
    return [line[2:].split()[0] for line in lines if set(line[2:].split()[:1]) & NAMES]


def clock(lines: list[str]) -> str:
    return lines[0].split()[1]


def test_lists_sort_filter_and_details(open_top: Open) -> None:
    window = open_top()
    # What hosts that are spoken for use swings a little on a busy machine.
    lines = window.wait_until(lambda now: any("checkout" in line and "0.90/" in line for line in now), "use")
    assert order(lines) == ["checkout", "nightly", "web-2", "red?[31m"]
    assert "[2 Containers]" in lines[1]
    assert "by CPU ▼" in lines[1]
    assert "CPU▼" in lines[2]
    checkout = next(line for line in lines if "checkout" in line)
    assert "█" in checkout
    assert "0.90/" in checkout
    assert "180M/" in checkout
    window.wait_until(lambda now: any(re.match(r"T  web-2 .* 100%", line) for line in now), "throttling")
    window.wait_until(lambda now: bool(re.search("[▁▂▃▄▅▆▇█]{4} +0%", now[3])), "a past of some frames")
    assert "q quit" in lines[-1]

    window.type("m")
    lines = window.wait_for("by memory ▼")
    assert order(lines) == ["nightly", "checkout", "web-2", "red?[31m"]
    window.type("r")
    assert order(window.wait_for("by memory ▲")) == ["red?[31m", "web-2", "checkout", "nightly"]

    window.type("/", "w", "e", "b")
    assert order(window.wait_for("(1 of 4)")) == ["web-2"]
    window.type("Enter")
    window.wait_for("q quit")
    window.type("Enter")
    lines = window.wait_for("newcomer")
    assert any(line.startswith("web-2  managed  application shop, host beta") for line in lines)
    assert any("AGO" in line and "CAUSE" in line for line in lines)
    window.type("Escape")
    window.wait_for("filter: web (1 of 4)")
    window.type("Escape")
    window.wait_until(lambda now: len(order(now)) == 4, "no filter")

    window.type("1")
    window.wait_for("[1 Applications]")
    window.type("Down", "Down", "Enter")
    lines = window.wait_until(lambda now: "application jobs" in now[1] or "application shop" in now[1], "one")
    assert 0 < len(order(lines)) < 4
    window.type("3")
    lines = window.wait_for("[3 Hosts]")
    assert any(line[2:].split()[:2] == ["alpha", "connected"] for line in lines)


def test_pause_help_resize_and_quit(open_top: Open) -> None:
    window = open_top(80, 24, "-d", "0.2")
    window.type("Space")
    paused = clock(window.wait_for("PAUSED"))
    window.type("?")
    window.wait_for("any key goes back")
    window.type("x")
    lines = window.wait_until(lambda now: len(order(now)) == 4, "the list again")
    assert "PAUSED" in lines[0]
    assert clock(lines) == paused
    window.type("Space")
    window.wait_until(lambda now: "PAUSED" not in now[0] and clock(now) != paused, "new pictures")

    window.resize(160, 50)
    lines = window.wait_for("STATE")
    assert all(title in lines[2] for title in ("NAME", "APP", "HOST", "STATE", "MEMORY"))
    assert "q quit" in lines[49]
    window.resize(60, 12)
    lines = window.wait_until(lambda now: "1 2 3 lists" in now[11], "the smaller screen")
    assert len(order(lines)) == 4

    window.resize(80, 24)
    window.type("q")
    window.wait_until(lambda now: any(line.startswith("ready>") for line in now[-3:] + now), "the shell")
    window.run(["echo", "status", "$?"])
    lines = window.wait_for("status 0")
    assert not any("[2 Containers]" in line for line in lines)  # what was there before is back


def test_colours_are_never_the_only_sign(open_top: Open) -> None:
    window = open_top()
    window.wait_until(lambda now: any(line.startswith("T  web-2") for line in now), "throttling")
    assert COLOUR.search("\n".join(window.screen(styled=True)))
    colourless = open_top(80, 24, NO_COLOR="1")
    lines = colourless.wait_until(lambda now: any(line.startswith("T  web-2") for line in now), "throttling")
    assert not COLOUR.search("\n".join(colourless.screen(styled=True)))
    assert set(order(lines)) == NAMES


def test_a_lost_connection_is_said_and_mended(open_top: Open, scene: Scene) -> None:
    window = open_top()
    scene.pair.stop("controller")
    lines = window.wait_for("no connection")
    assert set(order(lines)) == NAMES  # the last picture stays,
    _, picture = "\n".join(window.screen(styled=True)).split("\n", 1)
    assert "\x1b[2m" in picture  # greyed
    assert not COLOUR.search(picture)
    scene.pair.start("controller")
    window.wait_until(lambda now: now[0].startswith("escra"), "a new connection")
    window.type("q")
    window.wait_for("ready>")


def test_no_controller_at_the_start(tmp_path: Path) -> None:
    if reason := whats_missing():
        unavailable("terminal", reason)
    with terminal(tmp_path) as window:
        window.run([ESCRA, "top", "--socket", str(tmp_path / "none.sock")])
        window.wait_for("the controller is not running")
        window.run(["echo", "status", "$?"])
        window.wait_for("status 3")
