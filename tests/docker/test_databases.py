"""Databases whose data grow to four times what their containers were made for."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.kernel_memory import KernelMemory, OmegaWatch
from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.databases import POSTGRES, REDIS, Database
from tests.debian_image import DATABASES, CannotBuild, databases_tar
from tests.docker_engine import DockerEngine, EngineTrouble
from tests.needs import unavailable

pytestmark = pytest.mark.docker

BOTH = (REDIS, POSTGRES)
OMEGA_MIB = 640
CONTROLLER = f'grace_s = 0.2\n[apps.data]\ncpu = 8\nmemory = "{OMEGA_MIB}MiB"\n'
READY_S = 15.0


@pytest.fixture(scope="module")
def image(shared_engine: DockerEngine) -> None:
    try:
        tar = databases_tar()
    except (CannotBuild, subprocess.CalledProcessError) as error:
        unavailable("docker", f"no image of databases: {error}")
    shared_engine.start()
    shared_engine.docker("import", str(tar), DATABASES)


@pytest.fixture
def engine(image: None, docker_engine: DockerEngine) -> DockerEngine:
    """With the image of the databases."""
    return docker_engine


@pytest.fixture
def pair(engine: DockerEngine) -> Iterator[Pair]:
    socket = engine.socket.removeprefix("unix://")
    with running_pair(CONTROLLER, f'[docker]\nsocket = "{socket}"\n', nice=-10) as made:
        made.wait_until(lambda: bool(made.ask("agents")), "the agent joined")
        yield made
        engine.remove_containers()


class Running:
    """A database in its container."""

    def __init__(self, engine: DockerEngine, hierarchy: Hierarchy, database: Database, *options: str) -> None:
        self.database = database
        self._engine = engine
        container_id = engine.docker("run", *database.run_options(*options))
        self.path = f"{engine.cgroup_parent}/{container_id}"
        self.memory = KernelMemory(hierarchy, self.path)

    def do(self, script: str) -> str:
        return self._engine.docker("exec", self.database.name, "/bin/sh", "-c", script)

    def fill(self) -> None:
        wait_for(lambda: self._does(self.database.ready), f"{self.database.name} answers")
        self.do(self.database.fill)
        assert self.records() == self.database.records

    def records(self) -> int:
        return int(self.do(self.database.count))

    def incarnation(self) -> tuple[Any, ...]:
        """What changes when it is restarted, by whomever."""
        (said,) = json.loads(self._engine.docker("inspect", self.database.name))
        state = said["State"]
        return (state["Running"], state["Pid"], state["StartedAt"], said["RestartCount"], state["OOMKilled"])

    def killed(self) -> bool:
        """Any process of it, by its limit; the cgroup goes with the first process."""
        (said,) = json.loads(self._engine.docker("inspect", self.database.name))
        try:
            return bool(said["State"]["OOMKilled"] or self.memory.oom_kills())
        except FileNotFoundError:
            return False

    def _does(self, script: str) -> bool:
        try:
            self.do(script)
        except EngineTrouble:
            return False
        return True


def wait_for(met: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + READY_S
    while not met():
        assert time.monotonic() < end, f"not within {READY_S:g} s: {what}"
        time.sleep(0.1)


def test_both_grow_at_once_without_a_kill_or_a_restart(
    pair: Pair, engine: DockerEngine, hierarchy: Hierarchy
) -> None:
    databases = [Running(engine, hierarchy, database, "--label=escra.app=data") for database in BOTH]
    names = [database.name for database in BOTH]
    pair.wait_until(
        lambda: all(pair.rows().get(name, {}).get("memory", {}).get("managed") for name in names),
        "their memory is managed",
    )
    with OmegaWatch(hierarchy, OMEGA_MIB << 20) as watch, ThreadPoolExecutor() as threads:
        watch.paths = [running.path for running in databases]
        for running in databases:
            running.fill()
        before = [running.incarnation() for running in databases]
        assert all(is_running for is_running, *_ in before)
        # list() raises what a thread raised.
        list(threads.map(lambda running: running.do(running.database.grow), databases))
        assert [running.records() for running in databases] == [4 * database.records for database in BOTH]
        assert [running.incarnation() for running in databases] == before
        assert [running.memory.oom_kills() for running in databases] == [0, 0]
        for running in databases:
            limit, made_for = running.memory.limit(), running.database.memory_mib << 20
            assert limit is not None
            assert limit >= running.memory.used() > made_for
        watch.paths = ()
    assert watch.checks > 10
    assert watch.violations == 0


@pytest.mark.parametrize("database", BOTH, ids=lambda database: database.name)
def test_without_escra_the_same_growth_is_a_kill(
    engine: DockerEngine, hierarchy: Hierarchy, database: Database
) -> None:
    running = Running(engine, hierarchy, database)
    running.fill()
    assert not running.killed()
    with pytest.raises(EngineTrouble):
        running.do(database.grow)
    wait_for(running.killed, "Docker or the kernel tells the kill")
