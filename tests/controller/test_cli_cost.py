"""What a table costs: `escra ps` loads only what it needs, and its time is mostly Python's own start."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.controller.test_cli import serving
from tests.top.pictures import container

# Each costs as much as the whole command is allowed to.
UNWANTED = {
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
            "import json, sys; from escra_controller.cli import main;"
            f"main(['ps', '--socket', {str(path)!r}], standalone_mode=False);"
            "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == CONTAINERS + 1
    loaded = set(json.loads(done.stderr))
    assert "click" in loaded
    assert UNWANTED & loaded == set()


def test_a_thousand_containers_cost_about_as_much_as_the_start_of_the_command(tmp_path: Path) -> None:
    """Best of several, against the same program with nothing to show: a busy machine slows down both."""
    path = tmp_path / "controller.sock"
    with serving(path, answer):
        shown = _best([*_ESCRA, "ps", "--socket", str(path)])
    started = _best([*_ESCRA, "--version"])
    assert shown < 3.0 * started


_ESCRA = [sys.executable, "-m", "escra_controller.cli"]


def _best(command: list[str]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)
