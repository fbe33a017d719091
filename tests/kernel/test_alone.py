"""One agent per host: the second one, and a restore beside it, leave everything as it is."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from escra_common.lock import Lock

pytestmark = pytest.mark.kernel

AGENT = "[docker]\nenabled = false\n"


@pytest.fixture
def pair(hierarchy: Hierarchy) -> Iterator[Pair]:
    """Its agent runs, and holds the lock; there is no controller."""
    with running_pair("", AGENT, start=False) as made:
        made.start("agent")
        made.wait_until(lambda: lock(made).holder() is not None, "the agent holds the lock")
        yield made


def lock(pair: Pair) -> Lock:
    return Lock(pair.folder / "state" / "lock")


def escra_agent(pair: Pair, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "escra_agent.daemon", command, "--config", "agent.toml"],
        cwd=pair.folder,
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize("command", ["run", "restore"])
def test_beside_a_running_agent_is_refused_with_its_pid(pair: Pair, command: str) -> None:
    files = {path: path.read_bytes() for path in Path(pair.folder, "state").iterdir()}
    done = escra_agent(pair, command)
    assert done.returncode == 1
    assert f"process {pair.processes['agent'].pid} holds" in done.stderr
    assert "stop it first" in done.stderr
    assert {path: path.read_bytes() for path in Path(pair.folder, "state").iterdir()} == files
    assert pair.processes["agent"].poll() is None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_one_may_start_however_the_first_ended(pair: Pair, how: signal.Signals) -> None:
    pair.stop("agent", how)
    assert escra_agent(pair, "restore").returncode == 0
    pair.start("agent")
    pair.wait_until(lambda: lock(pair).holder() == pair.processes["agent"].pid, "the next one holds it")
