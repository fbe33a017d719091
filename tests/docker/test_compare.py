"""The comparison's shop of real software: it answers, cells of it are measured, and nothing is left of it."""

import contextlib
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.compare.cell import Load, Repetition, measured
from benchmarks.compare.dockerplace import DockerApplication, DockerContainers, docker_place
from benchmarks.compare.observer import Observer
from benchmarks.compare.profiling import profile_of
from benchmarks.compare.regimes import Profile, omega_of, regime
from escra_agent.hierarchy import Hierarchy
from tests.debian_image import CannotBuild
from tests.docker_engine import EngineTrouble, running_engine, whats_missing
from tests.kernel_cgroups import mounts
from tests.needs import unavailable

pytestmark = pytest.mark.docker

LOAD = Load("exp", rate=20.0, seconds=1.5, seed=1)


@contextlib.contextmanager
def a_place(hierarchy: Hierarchy) -> Iterator[DockerContainers]:
    if reason := whats_missing():
        unavailable("docker", reason)
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(running_engine("overlay2"))
            place = stack.enter_context(docker_place(hierarchy, engine))
        except (CannotBuild, EngineTrouble, subprocess.CalledProcessError) as error:
            unavailable("docker", str(error))
        yield place


def left_over(hierarchy: Hierarchy) -> set[Path]:
    """Networks and cgroups of this process's engines."""
    cgroups = {Path(mount, f"escra-test-docker-{os.getpid()}", "1") for mount in mounts(hierarchy)}
    return {path for path in {*cgroups, Path(f"/sys/class/net/escra-{os.getpid()}")} if path.exists()}


def test_the_shop_answers_is_measured_and_goes(hierarchy: Hierarchy) -> None:
    with a_place(hierarchy) as place:
        shop = place.designs["shop"]
        with place.running(shop) as application:
            assert application.containers.keys() == {*shop.services}
            assert len(shop.services) >= 8
            check_answers(application)
            free = measured(application, Observer(application, None, around=False), LOAD, None)
            profile = profile_of(free, LOAD.rate)
            check_static(application, profile)
            check_escra(application, profile)
        assert left_over(hierarchy)
        assert place.engine.docker("ps", "--all", "--quiet") == ""
        root = place.engine.root
    assert not left_over(hierarchy)
    assert not root.exists()


def check_answers(application: DockerApplication) -> None:
    """What PostgreSQL holds is on a page, and a picture is one; each came through nginx."""
    kind, page = application.answer(application.design.operations["home"]) or ("", b"")
    assert kind == "text/html"
    assert page.count(b"<b>name</b> product ") >= 12
    assert b"<b>currency</b>" in page
    kind, picture = application.answer(application.design.operations["image"]) or ("", b"")
    assert kind == "image/jpeg"
    assert picture[:2] == b"\xff\xd8"


def one_cell(policy: str, application: DockerApplication, profile: Profile) -> Repetition:
    with regime(policy, application, profile) as pair:
        observer = Observer(application, omega_of(policy, profile), around=False)
        return measured(application, observer, LOAD, pair)


def check_static(application: DockerApplication, profile: Profile) -> None:
    """Everybody has the profile's share of Ω from the beginning to the end."""
    result = one_cell("static-1x", application, profile)
    assert result.outcome.latencies_ms
    for name, series in result.observed.series.items():
        assert min(series.limit_cores) == max(series.limit_cores)
        assert series.limit_cores[0] == pytest.approx(profile.cores(name), abs=0.001)
    assert result.observed.oom_kills == result.observed.violations == 0


def check_escra(application: DockerApplication, profile: Profile) -> None:
    """Limits move, and never sum to more than Ω."""
    result = one_cell("escra", application, profile)
    assert result.outcome.latencies_ms
    assert result.writes_per_s > 0
    observed = result.observed
    assert observed.oom_kills == observed.violations == 0
    assert observed.watched.checks > 10
    for n in range(len(observed.times_s)):
        assert sum(series.limit_cores[n] for series in observed.series.values()) < 1.02 * profile.omega_cores
    assert all(math.isfinite(limit) for series in observed.series.values() for limit in series.limit_bytes)
