"""What is pulled from under both daemons on a real host: control goes on meanwhile, and after."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.host.conftest import StartContainer
from tests.host.target import Host
from tests.host.test_failures import agent_is_linked, quota_above

pytestmark = pytest.mark.host

JOURNAL = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket"


@contextmanager
def journald_stopped(host: Host) -> Iterator[None]:
    # Its sockets would start it again.
    host.run(f"systemctl stop {JOURNAL} systemd-journald.service")
    try:
        assert host.output("systemctl is-active systemd-journald || true") != "active"
        yield
    finally:
        host.run(f"systemctl start {JOURNAL} systemd-journald.service", check=False)


@contextmanager
def clock_an_hour_back(host: Host) -> Iterator[None]:
    host.run("date -s @$(($(date +%s) - 3600)) >/dev/null")
    try:
        yield
    finally:
        host.run("date -s @$(($(date +%s) + 3600)) >/dev/null")


Fault = Callable[[Host], AbstractContextManager[None]]


def units(host: Host) -> str:
    return host.output("systemctl show -P MainPID escra-agent escra-controller | tr '\\n' ' '")


@pytest.mark.parametrize("fault", [journald_stopped, clock_an_hour_back])
def test_limits_follow_the_work_meanwhile(host: Host, start: StartContainer, fault: Fault) -> None:
    agent_is_linked(host)
    before = units(host)
    name = fault.__name__.replace("_", "-")
    with fault(host):
        web = start(f"{name}-meanwhile", cpus=0.2)
        host.wait_until(quota_above(web.folder, 30000), 15)
        agent_is_linked(host)
    other = start(f"{name}-after", cpus=0.1)
    host.wait_until(quota_above(other.folder, 15000), 15)
    assert units(host) == before, "nothing had to be started again"


def test_docker_engine_restarted(host: Host, start: StartContainer) -> None:
    """The containers end with it, and are known again when they are started."""
    agent_is_linked(host)
    before = units(host)
    start("redocked", cpus=0.2)
    host.run("systemctl restart docker", timeout=90)
    host.run("docker start redocked >/dev/null")
    folder = host.output(
        "echo /sys/fs/cgroup$(cut -d: -f3 /proc/$(docker inspect -f '{{.State.Pid}}' redocked)/cgroup)"
    )
    host.wait_until(quota_above(folder, 30000), 20)
    assert units(host) == before
