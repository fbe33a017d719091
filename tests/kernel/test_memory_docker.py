"""Both daemons and a real Docker Engine: what `docker run` and `docker update` say of memory."""

from collections.abc import Iterator

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import MemoryLimit
from tests.docker_engine import DockerEngine

pytestmark = pytest.mark.docker

MIB = 1 << 20
CONTROLLER = 'grace_s = 0\n[apps.shop]\ncpu = 1.2\nmemory = "1GiB"\n'


@pytest.fixture
def pair(docker_engine: DockerEngine) -> Iterator[Pair]:
    socket = docker_engine.socket.removeprefix("unix://")
    with running_pair(CONTROLLER, f'[docker]\nsocket = "{socket}"\n') as made:
        made.wait_until(lambda: bool(made.ask("agents")), "the agent joined")
        yield made
        docker_engine.remove_containers()


def limit_of(hierarchy: Hierarchy, engine: DockerEngine, container: str) -> MemoryLimit:
    cgroup = hierarchy.open(f"{engine.cgroup_parent}/{container}")
    try:
        assert cgroup.memory_group is not None
        return cgroup.memory_group.read_limit()
    finally:
        cgroup.close()


def test_docker_update_is_the_new_original(
    pair: Pair, docker_engine: DockerEngine, hierarchy: Hierarchy
) -> None:
    run = ("--label", "escra.app=shop", "--network=none", "--memory=400m", "--memory-swap=500m")
    container = docker_engine.run(*run, name="web")
    pair.wait_managed("web")
    pair.wait_until(
        lambda: (limit_of(hierarchy, docker_engine, container).max_bytes or 0) < 100 * MIB,
        "what it does not use is taken back",
        12,
    )
    managed = limit_of(hierarchy, docker_engine, container)
    v2 = managed.high_bytes is not None
    if managed.swap_bytes is not None:
        assert managed.swap_bytes - (0 if v2 else managed.max_bytes or 0) == 100 * MIB
    docker_engine.docker("update", "--memory=300m", "--memory-swap=330m", "web")
    pair.wait_until(
        lambda: (limit_of(hierarchy, docker_engine, container).max_bytes or 0) < 100 * MIB, "still managed", 2
    )
    pair.write_config("controller", "grace_s = 0\n")
    pair.processes["controller"].send_signal(1)
    pair.wait_until(
        lambda: limit_of(hierarchy, docker_engine, container).max_bytes == 300 * MIB, "as it was updated", 3
    )
    given_back = limit_of(hierarchy, docker_engine, container)
    assert given_back.high_bytes is None
    assert given_back.swap_bytes in (None, 30 * MIB if v2 else 330 * MIB)
