"""Installs the project on the target host as its README tells people to, and removes it again."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.host.target import Host

ROOT = Path(__file__).parents[2]
IMAGE = "escra-test/busybox"

# What an application may use on the target host, in cores; the guest may have one processor.
OMEGA = 0.8

CONTROLLER = """
[listen]
agents = "127.0.0.1:7737"
control = "/run/escra/controller.sock"

[apps.shop]
cpu = "{omega}"
memory = "512MiB"
"""
AGENT = """
controller = "127.0.0.1:7737"

[docker]
socket = "/run/docker.sock"

[[cgroup]]
path = "system.slice/escra-test-load.service"
app = "shop"
name = "batch"

[fallback]
on_stop = "{on_stop}"
"""

SOURCES = "/usr/src/escra"
# What may be left of an earlier test, whatever became of it.
REMOVE = f"""
systemctl stop escra-agent escra-controller escra-test-load escra-example
systemctl reset-failed escra-agent escra-controller
docker ps -aq --filter label=escra-test | xargs -r docker rm -f
dpkg --purge escra
PURGE=1 {SOURCES}/systemd/install.sh uninstall
rm -rf {SOURCES}
rm -f /etc/systemd/system/escra-example.service
systemctl daemon-reload
"""
# Everything that an installation brings, or its daemons make.
TRACES = """
/opt/escra /usr/lib/escra /etc/escra /run/escra /usr/lib/sysusers.d/escra.conf
/usr/bin/escra /usr/bin/escra-agent /usr/bin/escra-controller
/usr/local/bin/escra /usr/local/bin/escra-agent /usr/local/bin/escra-controller
/lib/systemd/system/escra-agent.service /lib/systemd/system/escra-controller.service
/etc/systemd/system/escra-agent.service /etc/systemd/system/escra-controller.service
/etc/systemd/system/*.wants/escra-agent.service /etc/systemd/system/*.wants/escra-controller.service
/run/systemd/system/*/90-escra.conf /var/lib/escra-* /var/lib/private/escra-*
/usr/share/man/man?/escra* /usr/share/*/*completions*/*escra*
/usr/local/share/man/man?/escra* /usr/local/share/*/*completions*/*escra* /usr/local/share/zsh/*/_escra*
"""


def make(host: Host, target: str, **variables: str) -> str:
    """What `make install` or `make uninstall` does, on a host that need not have make."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    settings = "".join(f"export {name}={value}\n" for name, value in variables.items())
    return host.output(f"cd {SOURCES}\n{settings}{done.stdout}", timeout=300)


def traces(host: Host) -> list[str]:
    """What there is of Escra on the host: files, and users as getent prints them."""
    files = f"ls -d {' '.join(TRACES.split())} 2>/dev/null"
    users = "getent passwd escra-agent; getent group escra"
    return host.run(f"{files}; {users}", check=False).stdout.splitlines()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The package wants a host without Escra, and removing comes last: fixtures of a session do not move."""
    order = {"test_package.py": -1, "test_uninstall.py": 1}
    items.sort(key=lambda item: order.get(item.path.name, 0) if "host" in item.path.parts else -2)


def configure(host: Host, *, omega: float | str = OMEGA, on_stop: str = "hold") -> None:
    host.write("/etc/escra/controller.toml", CONTROLLER.format(omega=omega))
    host.write("/etc/escra/agent.toml", AGENT.format(on_stop=on_stop))


@pytest.fixture(scope="session")
def bare_host() -> Host:
    prefix = os.environ.get("ESCRA_TEST_HOST", "")
    if not prefix:
        reason = (
            "ESCRA_TEST_HOST is not set: a command prefix that reaches root, such as 'ssh root@throwaway'"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    host = Host(prefix)
    # A prefix that swallows standard input would run nothing, and succeed.
    if host.run("echo reached", check=False).stdout != "reached\n":
        pytest.fail(f"{prefix!r} does not run a script from standard input as root on a host")
    wanted = "test -d /run/systemd/system && test -f /sys/fs/cgroup/cgroup.controllers && docker info"
    problem = host.run(f"{wanted} >/dev/null", check=False)
    assert problem.returncode == 0, f"the host lacks systemd, cgroup v2 or Docker: {problem.stderr}"
    if theirs := traces(host):
        pytest.fail(f"this would overwrite what is on the host; use one to throw away: {theirs}")
    host.run(
        f"docker image inspect {IMAGE} >/dev/null 2>&1 ||"
        f" tar -C / -c bin/busybox | docker import - {IMAGE} >/dev/null"
    )
    return host


@pytest.fixture(scope="session")
def installed(bare_host: Host) -> Iterator[Host]:
    """The host with everything in place and nothing started."""
    host = bare_host
    try:
        sources = ["Makefile", "pyproject.toml", "constraints.txt", "README.md", "systemd"]
        sources += ["escra_common", "escra_agent", "escra_controller"]
        host.put(ROOT, sources, SOURCES)
        began = time.monotonic()
        make(host, "install")
        host.install_s = time.monotonic() - began
        configure(host)
        yield host
    finally:
        host.run(REMOVE, check=False, timeout=120)


@pytest.fixture(scope="session")
def host(installed: Host) -> Host:
    """The host with both units started by systemctl."""
    started = installed.run("systemctl start escra-controller escra-agent", check=False)
    if started.returncode:
        journal = installed.run("journalctl -u 'escra-*' -n 60 --no-pager", check=False).stdout
        pytest.fail(f"the units do not start: {started.stderr}\n{journal}")
    return installed


@dataclass(frozen=True, slots=True)
class Group:
    """A container or service under test, and its cgroup's folder."""

    name: str
    folder: str


StartContainer = Callable[..., Group]


def start_container(
    host: Host, name: str, *, cpus: float = 0.2, busy: bool = True, app: str = "shop"
) -> Group:
    """Runs until ``remove_containers``."""
    work = "while :; do :; done" if busy else "sleep 3600"
    folder = host.output(
        f"""
        docker run -d --name {name} --label escra-test --label escra.app={app} --cpus {cpus} \\
            --stop-timeout 0 {IMAGE} /bin/busybox sh -c '{work}' >/dev/null
        pid=$(docker inspect -f '{{{{.State.Pid}}}}' {name})
        echo /sys/fs/cgroup$(cut -d: -f3 /proc/$pid/cgroup)
        """
    )
    return Group(name, folder)


def remove_containers(host: Host) -> None:
    host.run("docker ps -aq --filter label=escra-test | xargs -r docker rm -f", check=False)


@pytest.fixture
def start(host: Host) -> Iterator[StartContainer]:
    """``start(name, cpus=0.2, busy=True)`` runs a labelled container that lasts as long as the test."""

    def start(name: str, **options: Any) -> Group:
        return start_container(host, name, **options)

    try:
        yield start
    finally:
        remove_containers(host)
