"""Functions in short-lived containers: real image jobs, with fixed limits and with Escra."""

import subprocess

import pytest

from benchmarks.compare.functionhost import Host, photograph, repeat
from benchmarks.compare.invocations import Function, arrivals
from escra_agent.hierarchy import Hierarchy
from tests.debian_image import PILLOW, CannotBuild, pillow_tar
from tests.docker_engine import DockerEngine
from tests.kernel_cgroups import KernelCgroup
from tests.needs import unavailable

pytestmark = pytest.mark.docker

WARM = Function("image", "image", clients=2, delay_s=3.0, pool=3)
ONCE = Function("once", "image", clients=2, delay_s=3.0, pool=3, once=True)


@pytest.fixture(scope="module")
def picture(shared_engine: DockerEngine) -> bytes:
    """Taken with the image, which is there then."""
    try:
        tar = pillow_tar()
    except (CannotBuild, subprocess.CalledProcessError) as error:
        unavailable("docker", f"no image with Python and Pillow: {error}")
    shared_engine.start()
    shared_engine.docker("import", str(tar), PILLOW)
    return photograph(shared_engine)


@pytest.fixture
def host(hierarchy: Hierarchy, docker_engine: DockerEngine, cgroup: KernelCgroup) -> Host:
    return Host(hierarchy, docker_engine, cgroup)


def test_functions_are_answered_and_escra_moves_their_limits_under_omega(host: Host, picture: bytes) -> None:
    run = repeat(host, WARM, "escra", arrivals(WARM, 6.0, seed=1), picture)
    found = run.metrics()
    assert found["invocations"] == 4
    assert found["p99_ms"] < 30_000  # none failed
    assert found["cold_share"] < 1
    assert (run.lost, run.oom_kills, run.seen.violations) == (0, 0, 0)
    assert run.seen.checks > 100
    working = [sample for sample in run.seen.samples if sample.containers == run.started]
    assert max(sample.used_cores for sample in working) > 0.3
    assert max(sample.limit_cores for sample in working) <= WARM.omega_cores
    # What two photographs take is not what two containers came with.
    assert min(sample.limit_bytes for sample in working) < run.started * WARM.memory_mib << 20
    assert found["writes_per_s"] > 0
    assert host.docker.docker("ps", "--all", "--quiet") == ""


def test_a_container_may_take_one_invocation_and_end(host: Host, picture: bytes) -> None:
    """Nobody moves its limits, and all of its life is in the latency."""
    run = repeat(host, ONCE, "fixed", arrivals(ONCE, 3.0, seed=1), picture)
    assert run.started == len(run.done) == 2
    assert all(invocation.cold and invocation.ended_at < 30 for invocation in run.done)
    assert all(
        sample.limit_cores == sample.containers * ONCE.cores
        and sample.limit_bytes == sample.containers * ONCE.memory_mib << 20
        for sample in run.seen.samples
    )
    assert max(sample.containers for sample in run.seen.samples) == 2
    assert host.docker.docker("ps", "--all", "--quiet") == ""
