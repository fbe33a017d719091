"""The demo as a stranger runs it, on this machine's cgroups; and that nothing of it stays behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escra_agent.hierarchy import Hierarchy
from tests.needs import unavailable

pytestmark = pytest.mark.kernel

DEMO = (sys.executable, "-m", "escra_controller.cli", "demo")
# What a demo and its children are known by.
MARKS = ("escra-demo-", "escra_controller.demo.worker")


@pytest.fixture(autouse=True)
def leaves_nothing(hierarchy: Hierarchy, tmp_path: Path) -> Iterator[None]:
    before = leftovers(tmp_path)
    yield
    assert leftovers(tmp_path) == before


def leftovers(tmp_path: Path) -> set[str]:
    """Cgroups, temporary files (in ``tmp_path``), and processes of demos."""
    found = {str(path) for path in Path("/sys/fs/cgroup").glob("**/escra-demo-*")}
    found |= {str(path) for path in tmp_path.glob("escra-demo-*")}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it ended while we looked
                continue
            if any(mark in command for mark in MARKS):
                found.add(f"{entry.name} {command}")
    return found


def start(tmp_path: Path, *command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_real_cgroups_get_less_throttling_under_the_same_limit(tmp_path: Path) -> None:
    with start(tmp_path, *DEMO, "--seconds", "8") as demo:
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, output
    assert "Summary: the same load, on this machine's cgroups" in output
    assert "less throttling, and the limits never summed to more than" in output
    assert "simulated" not in output.lower()


@pytest.mark.parametrize(
    ("signum", "moment"),
    [
        (signal.SIGINT, "Fixed limits"),
        (signal.SIGINT, "Escra: limits"),
        (signal.SIGTERM, "Escra: limits"),
    ],
)
def test_a_signal_ends_it_at_any_moment_and_all_it_started(
    tmp_path: Path, signum: signal.Signals, moment: str
) -> None:
    with start(tmp_path, *DEMO, "--seconds", "4") as demo:
        assert demo.stdout is not None
        shown = ""
        while moment not in shown:
            line = demo.stdout.readline()
            assert line, shown
            shown += line
        time.sleep(1.5)
        demo.send_signal(signum)
        began = time.monotonic()
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 128 + signum, shown + output
    assert "has been removed" in output
    assert time.monotonic() - began < 10


def test_where_cgroups_are_read_only_it_says_so_and_simulates(tmp_path: Path, hierarchy: Hierarchy) -> None:
    if shutil.which("unshare") is None:
        unavailable("kernel", "unshare (util-linux) is not installed")
    script = (
        "grep -E ' cgroup2? ' /proc/self/mounts | while read -r _ where _; do "
        'mount -o remount,bind,ro "$where" || exit 1; done; exec "$@"'
    )
    with start(tmp_path, "unshare", "--mount", "sh", "-c", script, "sh", *DEMO, "--seconds", "8") as demo:
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, output
    reason, simulated = output.split("SIMULATED", 1)
    assert "read-only" in reason
    assert "remount" in reason
    assert "on this machine's cgroups" not in simulated
    for heading in ("fixed limits, 0", "Escra, limits follow", "less throttling", "measured"):
        lines = [line for line in simulated.splitlines() if heading in line]
        assert lines
        assert all("imulated" in line for line in lines), lines


def test_who_may_not_make_cgroups_is_told_to_be_root(tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        unavailable("kernel", "setpriv (util-linux) is not installed")
    # An ordinary user, except that it may read this checkout wherever it is.
    ordinary = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    with start(tmp_path, *ordinary, *reading, *DEMO, "--seconds", "4") as demo:
        output, _ = demo.communicate(timeout=60)
    assert "run it as root: sudo make demo" in output
    assert "SIMULATED" in output
