"""Daemons that end, come back and are told something else: what becomes of the limits."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks.kernel_memory import KernelMemory
from benchmarks.pair import running_pair
from escra_agent.hierarchy import Hierarchy
from escra_controller.client import QueryError
from tests.kernel.scene import CONTROLLER, NAMES, OMEGA, Scene, running_scene
from tests.kernel_cgroups import KernelCgroup, limit

pytestmark = pytest.mark.kernel


@pytest.fixture
def scene(hierarchy: Hierarchy) -> Iterator[Scene]:
    with running_scene(hierarchy) as running:
        yield running


def test_after_a_kill_the_originals_are_still_known(scene: Scene) -> None:
    scene.groups["b"].busy()
    scene.pair.wait_until(lambda: scene.settled("b") > 500, "b grew", 5)
    scene.pair.stop("agent", signal.SIGKILL)
    held = scene.milli("b")
    time.sleep(0.5)
    assert scene.milli("b") == held, "nobody touches limits while there is no agent"
    scene.pair.start("agent")
    scene.pair.wait_until(lambda: scene.pair.ask("agents")[0]["state"] == "connected", "agent back")
    assert scene.pair.rows()["b"]["state"] == "managed"
    scene.pair.stop("agent")
    assert scene.milli("b") != 400
    done = subprocess.run(
        [sys.executable, "-m", "escra_agent.daemon", "restore", "--config", "agent.toml"],
        cwd=scene.pair.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "b: restored: 40000 us per 100000 us" in done.stdout
    assert scene.milli("b") == 400
    assert scene.milli("a") is None


def test_a_limit_that_is_the_original_is_known_for_ours_after_both_were_killed(
    hierarchy: Hierarchy, cgroup: KernelCgroup
) -> None:
    """While it is taken for new, what it holds is counted by nobody."""
    cpu, memory = cgroup.open(), KernelMemory(hierarchy, cgroup.path)
    cpu.write_limit(limit(0.4))
    memory.set_limit(64 << 20)
    own = f'[docker]\nenabled = false\n[[cgroup]]\npath = "{cgroup.path}"\napp = "shop"\nname = "c"\n'
    bounds = 'cpu_min = 0.4\nmemory_min = "64MiB"\nmemory_max = "64MiB"\n'
    with running_pair(CONTROLLER, own + bounds) as pair:

        def managed() -> bool:
            """Not before both of ours are in the kernel: what came before them is nobody's to remember."""
            ours = cpu.read_limit() != limit(0.4) and memory.limit() != 64 << 20
            return ours and pair.rows().get("c", {}).get("state") == "managed"

        pair.wait_until(managed, "it has what it came with")
        for _ in range(2):
            pair.stop("agent", signal.SIGKILL)
            pair.stop("controller", signal.SIGKILL)
            pair.start()
            pair.wait_until(managed, "it is managed again")
        assert (pair.folder / "controller.log").read_text().count("(newcomer)") == 2, "CPU and memory, once"
    cpu.close()


def test_whom_nobody_claims_after_a_kill_gets_its_original_back(scene: Scene) -> None:
    scene.pair.wait_until(lambda: scene.milli("b") == 50, "b rests", 4)
    scene.pair.stop("agent", signal.SIGKILL)
    scene.pair.write_config("agent", scene.agent_toml("a"))
    scene.pair.start("agent")
    scene.pair.wait_until(lambda: scene.milli("b") == 400, "b has its own limit")
    scene.pair.wait_managed("a")
    assert "b" not in scene.pair.rows()


def test_a_clean_stop_restores_when_told_to(scene: Scene) -> None:
    scene.pair.stop("agent")
    assert scene.milli("a") is not None, "the default is to hold"
    scene.pair.write_config("agent", scene.agent_toml(*NAMES, on_stop="restore"))
    scene.pair.start("agent")
    scene.pair.wait_managed(*NAMES)
    assert scene.pair.stop("agent") == 0
    assert (scene.milli("a"), scene.milli("b")) == (None, 400)


def test_reload_takes_a_cgroup_in_and_gives_one_back(scene: Scene) -> None:
    scene.pair.write_config("agent", scene.agent_toml("a"))
    scene.pair.processes["agent"].send_signal(signal.SIGHUP)
    scene.pair.wait_until(lambda: "b" not in scene.pair.rows(), "b given back")
    assert scene.milli("b") == 400
    scene.pair.write_config("agent", "nonsense = 1\n")
    scene.pair.processes["agent"].send_signal(signal.SIGHUP)
    scene.pair.wait_until(lambda: "unknown key 'nonsense'" in scene.pair.logs(), "refused with its reason")
    assert scene.pair.rows()["a"]["state"] == "managed"
    scene.pair.write_config("agent", scene.agent_toml(*NAMES))
    scene.pair.processes["agent"].send_signal(signal.SIGHUP)
    scene.pair.wait_managed(*NAMES)


def test_without_a_controller_limits_hold_and_with_one_they_move_again(scene: Scene) -> None:
    scene.pair.wait_until(lambda: scene.milli("b") == 50, "b rests", 4)
    scene.pair.stop("controller", signal.SIGKILL)
    scene.groups["b"].busy()
    time.sleep(1)
    assert scene.highest("b") == 50
    with pytest.raises(QueryError):
        scene.pair.ask("status")
    scene.pair.start("controller")
    scene.pair.wait_until(lambda: scene.settled("b") > 500, "b grows again", 8)
    assert scene.total() <= OMEGA
