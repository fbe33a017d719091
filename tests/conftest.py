"""Fixtures that give tests the real thing: this machine's cgroups, and a Docker Engine."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from escra_agent.hierarchy import Hierarchy, NoCgroups
from escra_common.errors import EscraError
from tests import docker_engine as engines
from tests import kernel_cgroups as cgroups
from tests.needs import unavailable


@pytest.fixture(scope="session")
def hierarchy() -> Iterator[Hierarchy]:
    """This machine's, ready for new cgroups with CPU limits in its root."""
    try:
        found = Hierarchy.detect()
    except NoCgroups as error:
        unavailable("kernel", str(error))
    if reason := cgroups.whats_missing(found):
        unavailable("kernel", reason)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cgroups.controllers_enabled(found))
            cgroups.try_out(found)
        except (EscraError, OSError) as error:
            unavailable("kernel", str(error))
        yield found


@pytest.fixture
def cgroup(hierarchy: Hierarchy) -> Iterator[cgroups.KernelCgroup]:
    """A throw-away cgroup; what runs in it is killed, and it is removed, when the test is over."""
    with cgroups.throwaway(hierarchy) as made:
        yield made


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[engines.DockerEngine]:
    if reason := engines.whats_missing():
        unavailable("docker", reason)
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(engines.running_engine())
        except engines.EngineTrouble as error:
            unavailable("docker", str(error))
        yield engine


@pytest.fixture
def docker_engine(shared_engine: engines.DockerEngine) -> Iterator[engines.DockerEngine]:
    """A running engine without containers; whatever the test starts is removed after it."""
    shared_engine.start()
    yield shared_engine
    shared_engine.start()
    shared_engine.remove_containers()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true a skip, whatever its reason, is a test that did not run: a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI: tests were skipped; here all of them must run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
