"""What a table costs: `escra ps` loads only what it needs, and its time is mostly Python's own start."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.controller.test_cli import serving
from tests.top.pictures import container

# Each takes as long as the table itself, or longer.
UNWANTED = {
    "json",
    "msgspec",
    "pathlib",
    "shutil",
    "textual",
    "rich",
    "aiohttp",
    "aiodocker",
    "uvloop",
    "asyncio",
    "psutil",
    "structlog",
    "cryptography",
    "sqlite3",
    "ssl",
    "logging",
    "tomllib",
    "escra_controller.top.screen",
    "escra_controller.demo",
    "escra_controller.eventcommands",
    "escra_controller.reportcommands",
    "escra_controller.top.command",
    "escra_controller.engine",
    "escra_common.messages",
}
CONTAINERS = 1000
ROUNDS = 5
ROWS = [container(f"web-{n}", host=f"host-{n % 10}", cpu=n / 1000) for n in range(CONTAINERS)]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "data": ROWS}


def test_a_table_loads_only_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with serving(path, answer):
        program = (
            "import sys; from escra_controller.cli import main;"
            f"main(['ps', '--socket', {str(path)!r}], standalone_mode=False);"
            "print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == CONTAINERS + 1
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert UNWANTED & loaded == set()


def test_a_thousand_containers_cost_about_as_much_as_the_start_of_click(tmp_path: Path) -> None:
    """Best of several, against a program that does nothing else: a busy machine slows down both."""
    path = tmp_path / "controller.sock"
    with serving(path, answer):
        shown = _best([*_ESCRA, "ps", "--socket", str(path)])
    started = _best([sys.executable, "-c", "import click"])
    assert shown < 3.0 * started


_ESCRA = [sys.executable, "-m", "escra_controller.cli"]


def _best(command: list[str]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)
