"""The example for Docker Compose, as people run it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pair import Pair, running_pair
from tests.docker_engine import IMAGE, DockerEngine
from tests.needs import unavailable

pytestmark = pytest.mark.docker

EXAMPLE = Path(__file__).parents[2] / "systemd" / "examples" / "compose" / "compose.yaml"
# The test's engine has no bridge to make a network with.
NO_NETWORK = "services:\n" + "".join(
    f"  {name}:\n    network_mode: none\n" for name in ("web", "cache", "backup")
)


@pytest.fixture
def pair(docker_engine: DockerEngine) -> Iterator[Pair]:
    socket = docker_engine.socket.removeprefix("unix://")
    controller = 'grace_s = 0\n[apps.shop]\ncpu = 1\nmemory = "512MiB"\n'
    with running_pair(controller, f'[docker]\nsocket = "{socket}"\n') as made:
        made.wait_until(lambda: bool(made.ask("agents")), "the agent joined")
        yield made
        docker_engine.remove_containers()


def test_the_composed_containers_are_managed(pair: Pair, docker_engine: DockerEngine, tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        unavailable("docker", "docker-compose is not installed (Debian: docker-compose)")
    docker_engine.docker("tag", IMAGE, "busybox")
    (tmp_path / "no-network.yaml").write_text(NO_NETWORK)
    compose = [
        "docker-compose",
        "-p",
        "try",
        "-f",
        str(EXAMPLE),
        "-f",
        str(tmp_path / "no-network.yaml"),
        "up",
        "-d",
    ]
    done = subprocess.run(
        compose,
        env=os.environ | {"DOCKER_HOST": docker_engine.socket},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    # Versions of Compose join the words of a name differently.
    def named(service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        return docker_engine.docker("ps", "--filter", label, "--format", "{{.Names}}")

    web, cache = named("web"), named("cache")
    pair.wait_managed(web, cache)
    assert set(pair.rows()) == {web, cache}, "without a label it is left alone"
    pair.wait_until(lambda: pair.rows()[web]["cpu"]["limit_cores"] > 0.5, "it grows with its work")
    pair.wait_until(
        lambda: pair.rows()[cache]["cpu"]["limit_cores"] < 0.2, "it gives back what it does not use"
    )
    assert pair.rows()[cache]["memory"]["limit_bytes"] <= 128 << 20
