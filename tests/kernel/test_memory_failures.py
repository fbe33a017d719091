"""An agent that is killed or stopped leaves no task waiting at its memory limit."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escra_agent.originals import OriginalsStore, restore_all
from escra_common.messages import (
    MemoryLimit,
)
from tests.kernel_cgroups import KernelCgroup
from tests.memory_agent import (
    MIB,
    Eater,
    armed,
    group_of,
    memory_directory,
    until,
)

pytestmark = pytest.mark.kernel


AGENT = """
import asyncio, signal, sys, pathlib
from escra_agent.hierarchy import Hierarchy
from escra_common import log
from tests.memory_agent import MIB, Agent, run, running
from tests.kernel_cgroups import KernelCgroup

class Found(KernelCgroup):
    def __init__(self, path):
        self.hierarchy, self.path = Hierarchy.detect(), path

async def scene():
    # As the real agent's: through the loop, at any moment.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async with running(Found(sys.argv[1]), pathlib.Path(sys.argv[2])) as agent:
        if not agent.memory.plan.wanted:
            await agent.limit_to(64 * MIB, 8 * MIB)
        print(agent.keeper.guard_pid or 0, flush=True)
        await asyncio.sleep(3600)

log.configure("agent")
run(scene())
"""


@contextlib.contextmanager
def agent_process(cgroup: KernelCgroup, folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """An agent that manages ``cgroup``, in a process of its own, and the pid of its guard."""
    command = [sys.executable, "-c", AGENT, cgroup.path, str(folder)]
    with (folder / "agent.log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], text=True, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        line = ""
        while not line.strip().isdecimal():
            line = process.stdout.readline()
            assert line, (folder / "agent.log").read_text()
        yield process, int(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stalled(cgroup: KernelCgroup) -> bool:
    control = memory_directory(cgroup) / "memory.oom_control"
    if not control.exists():
        pytest.skip("only cgroup v1 lets tasks wait at the limit")
    return "under_oom 1" in control.read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_no_task_waits_for_an_agent_that_is_not_there(
    cgroup: KernelCgroup, tmp_path: Path, how: signal.Signals
) -> None:
    eater = Eater(cgroup, tmp_path / "eater")
    with agent_process(cgroup, tmp_path) as (agent, _):
        eater.want(200 * MIB)
        asyncio.run(until(lambda: stalled(cgroup), "paused"))
        agent.send_signal(how)
        freed_s = asyncio.run(until(lambda: eater.process.poll() is not None, "freed"))
        print(f"{how.name}: {freed_s:.3f} s")
        assert freed_s < 2.0
        assert not armed(cgroup)
        if how == signal.SIGSTOP:
            agent.send_signal(signal.SIGCONT)
            asyncio.run(until(lambda: armed(cgroup), "armed again"))
            agent.send_signal(signal.SIGTERM)
            agent.wait(5)
            assert not armed(cgroup)


def test_without_its_guard_an_agent_arms_nothing(cgroup: KernelCgroup, tmp_path: Path) -> None:
    stalled(cgroup)
    with agent_process(cgroup, tmp_path) as (_, guard):
        assert armed(cgroup)
        time.sleep(0.3)
        os.kill(guard, signal.SIGTERM)
        time.sleep(0.3)
        assert armed(cgroup), "only the end of its pipe ends it"
        os.kill(guard, signal.SIGKILL)
        asyncio.run(until(lambda: not armed(cgroup), "disarmed", 0.5))
        asyncio.run(until(lambda: "memory guard" in (tmp_path / "agent.log").read_text(), "said"))
        asyncio.run(until(lambda: armed(cgroup), "another guard", 8))


def test_the_disarm_command_is_the_last_resort(cgroup: KernelCgroup, tmp_path: Path) -> None:
    stalled(cgroup)
    with agent_process(cgroup, tmp_path) as (agent, guard):
        agent.send_signal(signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        agent.kill()
        agent.wait()
    assert armed(cgroup), "nobody was left to disarm it"
    (tmp_path / "agent.toml").write_text(f'state_dir = "{tmp_path}"\n')
    command = [sys.executable, "-m", "escra_agent.daemon", "disarm", "--config", "agent.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert not armed(cgroup)


def test_after_a_kill_the_original_is_still_known(cgroup: KernelCgroup, tmp_path: Path) -> None:
    group = group_of(cgroup)
    original = group.lower_limit(MemoryLimit(96 * MIB, None, 128 * MIB))
    with agent_process(cgroup, tmp_path) as (agent, _):
        agent.kill()
        agent.wait()
    held = group.read_limit()
    assert held.max_bytes == 64 * MIB
    with agent_process(cgroup, tmp_path) as (agent, _):
        assert group.read_limit() == held
        agent.kill()
        agent.wait()
    store = OriginalsStore(tmp_path / "originals.json")
    store.load()
    (outcome,) = restore_all(store, cgroup.hierarchy)
    assert (outcome.result, outcome.text[-16:]) == ("restored", ", memory 96.0MiB")
    assert group.read_limit() == original
    assert not armed(cgroup)
