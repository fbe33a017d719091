"""Both daemons and a real Docker Engine: labels in, limits out."""

import time
from collections.abc import Iterator

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.docker_engine import DockerEngine

pytestmark = pytest.mark.docker

BUSY = "while :; do :; done"
CONTROLLER = 'grace_s = 0\n[apps.shop]\ncpu = 1.2\nmemory = "1GiB"\n'


@pytest.fixture
def pair(docker_engine: DockerEngine) -> Iterator[Pair]:
    socket = docker_engine.socket.removeprefix("unix://")
    with running_pair(CONTROLLER, f'[docker]\nsocket = "{socket}"\n') as made:
        made.wait_until(lambda: bool(made.ask("agents")), "the agent joined")
        yield made
        docker_engine.remove_containers()


def quota_milli(hierarchy: Hierarchy, engine: DockerEngine, container: str) -> int | None:
    cgroup = hierarchy.open(f"{engine.cgroup_parent}/{container}")
    in_force = cgroup.read_limit()
    cgroup.close()
    return None if in_force.quota_usec is None else in_force.quota_usec * 1000 // in_force.period_usec


def test_labelled_containers_share_omega(
    pair: Pair, docker_engine: DockerEngine, hierarchy: Hierarchy
) -> None:
    """The kernel's files and `escra ps` say the same, and never more than Ω together."""
    labels = ("--label", "escra.app=shop", "--cpus=0.2", "--network=none")
    busy = docker_engine.run(*labels, name="busy", script=BUSY)
    idle = docker_engine.run(*labels, "--label", "escra.cpu.min=0.1", name="idle")
    outsider = docker_engine.run("--network=none", "--cpus=0.3", name="outsider")
    pair.wait_managed("busy", "idle")

    def limits() -> list[int]:
        return [quota_milli(hierarchy, docker_engine, c) or 0 for c in (busy, idle)]

    pair.wait_until(lambda: limits()[0] > 700 and limits()[1] == 100, "quotas follow the work", 6)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert sum(limits()) <= 1200
        time.sleep(0.01)
    row = pair.rows()["busy"]
    assert row["id"] == busy
    assert abs(row["cpu"]["limit_cores"] * 1000 - limits()[0]) <= 50
    assert "outsider" not in pair.rows()
    assert quota_milli(hierarchy, docker_engine, outsider) == 300


def test_docker_update_is_the_new_original(
    pair: Pair, docker_engine: DockerEngine, hierarchy: Hierarchy
) -> None:
    container = docker_engine.run("--label", "escra.app=shop", "--cpus=0.2", "--network=none", name="web")
    pair.wait_managed("web")
    pair.wait_until(lambda: quota_milli(hierarchy, docker_engine, container) == 50, "idle at its floor", 5)
    docker_engine.docker("update", "--cpus=0.7", "web")
    pair.wait_until(lambda: quota_milli(hierarchy, docker_engine, container) == 50, "still managed", 2)
    assert pair.rows()["web"]["state"] == "managed"
    pair.write_config("controller", "grace_s = 0\n")
    pair.processes["controller"].send_signal(1)
    pair.wait_until(
        lambda: quota_milli(hierarchy, docker_engine, container) == 700, "given back as it was updated", 3
    )


def test_rename_and_restart_keep_a_container_managed(pair: Pair, docker_engine: DockerEngine) -> None:
    docker_engine.run("--label", "escra.app=shop", "--network=none", name="old")
    pair.wait_managed("old")
    docker_engine.docker("rename", "old", "new")
    pair.wait_until(lambda: set(pair.rows()) == {"new"}, "renamed", 3)
    docker_engine.docker("restart", "--time=0", "new")
    pair.wait_managed("new")
    docker_engine.docker("rm", "--force", "new")
    pair.wait_until(lambda: not pair.rows(), "gone", 3)
    assert pair.ask("apps")[0]["cpu"]["allocated_cores"] == 0


@pytest.mark.parametrize(
    ("labels", "state", "why"),
    [
        (("escra.app=nobody",), "unknown-app", r"no [apps.nobody]"),
        (("escra.app=shop", "escra.cpu.max=lots"), "invalid", "'lots'"),
        (("escra.app=shop", "escra.wait=3"), "invalid", "escra.weight"),
        (("escra.app=shop", "escra.mode=off"), "off", ""),
        (("escra.app=shop", "escra.mode=observe"), "observe", ""),
    ],
)
def test_what_cannot_or_shall_not_be_managed_is_shown_and_left_alone(
    pair: Pair,
    docker_engine: DockerEngine,
    hierarchy: Hierarchy,
    labels: tuple[str, ...],
    state: str,
    why: str,
) -> None:
    options = [word for label in labels for word in ("--label", label)]
    container = docker_engine.run(*options, "--cpus=0.2", "--network=none", name="odd")
    pair.wait_until(lambda: pair.rows().get("odd", {}).get("state") == state, state)
    assert why in pair.rows()["odd"]["problem"]
    time.sleep(0.5)
    assert quota_milli(hierarchy, docker_engine, container) == 200


def test_the_engine_may_restart(pair: Pair, docker_engine: DockerEngine) -> None:
    docker_engine.run("--label", "escra.app=shop", "--network=none", name="before")
    pair.wait_managed("before")
    docker_engine.stop()
    pair.wait_until(lambda: not pair.rows(), "its containers ended with it", 10)
    docker_engine.start()
    docker_engine.run("--label", "escra.app=shop", "--network=none", name="after")
    pair.wait_managed("after")
