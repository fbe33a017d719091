"""The machine around the daemons misbehaves, and control goes on: journal, disk, Docker, clock."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.host.conftest import OMEGA, Group, StartContainer
from tests.host.target import Host
from tests.host.test_failures import agent_is_linked, quota_above

pytestmark = pytest.mark.host

ESCRA = "/opt/escra/bin/escra"
JOURNALD = " ".join(
    f"systemd-journald{unit}" for unit in (".socket", "-dev-log.socket", "-audit.socket", ".service")
)
AGENT_STATE, CONTROLLER_STATE = "/var/lib/escra-agent", "/var/lib/private/escra-controller"


@pytest.fixture
def unshaken(host: Host) -> Iterator[None]:
    """Neither daemon ends over it."""
    show = "systemctl show -P MainPID escra-agent escra-controller"
    before = host.output(show)
    yield
    assert host.output(show) == before


def limits_follow(host: Host, group: Group) -> None:
    """Down and up again, by a person's word."""
    host.run(f"{ESCRA} set shop --cpu 0.2 >/dev/null")
    host.wait_until(f"! {quota_above(group.folder, 20000)}", 5)
    host.run(f"{ESCRA} set shop --cpu {OMEGA} >/dev/null")
    host.wait_until(quota_above(group.folder, 30000), 10)


@pytest.mark.usefixtures("unshaken")
def test_the_journal_is_stopped(host: Host, start: StartContainer) -> None:
    web = start("unlogged", cpus=0.2)
    host.wait_until(quota_above(web.folder, 30000), 10)
    try:
        host.run(f"systemctl stop {JOURNALD} 2>/dev/null", check=False)
        assert host.run("systemctl is-active systemd-journald", check=False).stdout.strip() != "active"
        limits_follow(host, web)
    finally:
        host.run(f"systemctl start {JOURNALD}", check=False)
    limits_follow(host, web)


@pytest.mark.usefixtures("unshaken")
def test_the_journal_is_stuck(host: Host, start: StartContainer) -> None:
    web = start("stuck", cpus=0.2)
    host.wait_until(quota_above(web.folder, 30000), 10)
    pid = host.output("systemctl show -P MainPID systemd-journald")
    try:
        host.run(f"kill -STOP {pid}")
        for _ in range(3):
            limits_follow(host, web)
    finally:
        host.run(f"kill -CONT {pid}")


@contextmanager
def small_state_directories(host: Host) -> Iterator[None]:
    """Both daemons with their state on disks of 2 MiB."""
    folders = f"{AGENT_STATE} {CONTROLLER_STATE}"
    try:
        host.run(
            f"""
            systemctl stop escra-agent escra-controller
            for folder in {folders}; do
                mkdir -p $folder
                mount -t tmpfs -o size=2m,mode=700 escra-test $folder
            done
            systemctl start escra-controller escra-agent
            """
        )
        yield
    finally:
        host.run(
            f"""
            systemctl stop escra-agent escra-controller
            for folder in {folders}; do umount $folder; done
            systemctl start escra-controller escra-agent
            """,
            check=False,
        )


def test_the_disk_is_full(host: Host, start: StartContainer) -> None:
    web = start("full", cpus=0.2)
    with small_state_directories(host):
        agent_is_linked(host)
        host.wait_until(quota_above(web.folder, 30000), 10)
        for folder in (AGENT_STATE, CONTROLLER_STATE):
            filled = host.run(f"dd if=/dev/zero of={folder}/fill bs=4k 2>&1", check=False).stdout
            assert "No space left" in filled
        limits_follow(host, web)
        host.wait_until(f"{ESCRA} status | grep -q 'problem: store: '", 10)
        host.run("systemctl restart escra-controller")
        agent_is_linked(host)
        assert host.output("systemctl is-active escra-agent escra-controller").split() == ["active", "active"]
        host.run(f"rm {AGENT_STATE}/fill {CONTROLLER_STATE}/fill")
        host.wait_until(f"! {ESCRA} status | grep -q 'problem: store: '", 45)
        host.wait_until(quota_above(web.folder, 30000), 30)
        limits_follow(host, web)
    agent_is_linked(host)


@pytest.mark.usefixtures("unshaken")
def test_docker_is_restarted(host: Host, start: StartContainer) -> None:
    start("before", cpus=0.2)
    host.wait_until(f"{ESCRA} ps | grep -q before", 10)
    host.run("systemctl restart docker", timeout=120)
    host.wait_until(f"! {ESCRA} ps | grep -q before", 20)
    after = start("after", cpus=0.2)
    host.wait_until(quota_above(after.folder, 30000), 15)


def test_the_clock_is_set_back_an_hour(host: Host, start: StartContainer) -> None:
    web = start("timeless", cpus=0.2)
    host.wait_until(quota_above(web.folder, 30000), 10)
    try:
        host.run("date -s @$(($(date +%s) - 3600)) >/dev/null")
        limits_follow(host, web)
        host.run("systemctl restart escra-controller")
        agent_is_linked(host)
        limits_follow(host, web)
        assert host.json(f"{ESCRA} status --json")["state"] == "ok"
    finally:
        host.run("date -s @$(($(date +%s) + 3600)) >/dev/null")
    limits_follow(host, web)
