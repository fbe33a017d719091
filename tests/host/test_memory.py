"""Memory on a host with cgroup v2: databases that grow, and the benchmark's episodes."""

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.growth import build
from tests.databases import POSTGRES, REDIS, Database
from tests.debian_image import DATABASES, CannotBuild, databases_tar
from tests.host.conftest import ROOT, SOURCES
from tests.host.target import Host
from tests.needs import unavailable

pytestmark = pytest.mark.host

ESCRA = "/opt/escra/bin/escra"
BOTH = (REDIS, POSTGRES)
# As the host's controller is configured.
OMEGA_BYTES = 512 << 20

# Runs commands at the same time; prints how they ended, and the most that the limits summed to meanwhile.
_WATCH = """
import json, subprocess, time
running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in {commands!r}]
most = 0
while any(process.poll() is None for process in running):
    most = max(most, sum(int(open(group + "/memory.max").read()) for group in {groups!r}))
    time.sleep(0.1)
print(json.dumps([[process.wait() for process in running], most]))
"""


@pytest.fixture(scope="module")
def image(installed: Host) -> Iterator[None]:
    """On the host as long as these tests run."""
    there = "/var/tmp/escra-test"
    try:
        tar = databases_tar()
    except CannotBuild as error:
        unavailable("docker", f"no image of databases: {error}")
    try:
        installed.put(tar.parent, [tar.name], there)
        installed.run(f"docker import {there}/{tar.name} {DATABASES}; rm -r {there}", timeout=300)
        yield
    finally:
        installed.run(f"rm -rf {there}; docker rmi -f {DATABASES}", check=False)


@pytest.fixture
def containers(host: Host, image: None) -> Iterator[Host]:
    """The host; containers with the label escra-test last as long as the test."""
    try:
        yield host
    finally:
        host.run("docker ps -aq --filter label=escra-test | xargs -r docker rm -f", check=False)


def start(host: Host, database: Database, *options: str) -> str:
    """Its cgroup's folder, when it is filled."""
    command = ["docker", "run", *database.run_options("--label=escra-test", *options)]
    pid = f"docker inspect -f '{{{{.State.Pid}}}}' {database.name}"
    folder = host.output(
        f"{shlex.join(command)} >/dev/null; echo /sys/fs/cgroup$(cut -d: -f3 /proc/$({pid})/cgroup)"
    )
    host.wait_until(f"{inside(database, database.ready)} >/dev/null 2>&1", 60)
    host.run(inside(database, database.fill))
    return folder


def inside(database: Database, script: str) -> str:
    return shlex.join(["docker", "exec", database.name, "/bin/sh", "-c", script])


def counter(host: Host, folder: str, name: str) -> int:
    return int(host.output(f"sed -n 's/^{name} //p' {folder}/memory.events"))


def incarnation(host: Host, database: Database) -> str:
    facts = "{{.State.Running}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}} {{.State.OOMKilled}}"
    return host.output(f"docker inspect -f '{facts}' {database.name}")


def memory_managed(host: Host) -> set[str]:
    return {row["name"] for row in host.json(f"{ESCRA} ps --json") if row["memory"]["managed"]}


def test_both_databases_grow_at_once_without_a_kill_or_a_restart(containers: Host) -> None:
    host = containers
    folders = [start(host, database, "--label=escra.app=shop") for database in BOTH]
    deadline = time.monotonic() + 10
    while not {database.name for database in BOTH} <= memory_managed(host):
        assert time.monotonic() < deadline, "their memory is not managed"
    before = [incarnation(host, database) for database in BOTH]
    commands = [shlex.split(inside(database, database.grow)) for database in BOTH]
    watch = _WATCH.format(commands=commands, groups=folders)
    statuses, most_bytes = json.loads(host.output(f"python3 - <<'END'\n{watch}\nEND", timeout=120))
    assert statuses == [0, 0]
    assert most_bytes <= OMEGA_BYTES
    for database, folder, was in zip(BOTH, folders, before, strict=True):
        assert int(host.output(inside(database, database.count))) == 4 * database.records
        assert incarnation(host, database) == was
        assert counter(host, folder, "oom_kill") == 0
        assert int(host.output(f"cat {folder}/memory.max")) > database.memory_mib << 20


def test_without_escra_the_same_growth_is_a_kill(containers: Host) -> None:
    start(containers, REDIS)
    identity = containers.output(f"docker inspect -f '{{{{.Id}}}}' {REDIS.name}")
    assert containers.run(inside(REDIS, REDIS.grow), check=False).returncode != 0
    # Docker's OOMKilled may stay false on cgroup v2, where the cgroup can be gone before containerd has
    # read its events (hashicorp/nomad issue 13119); the kernel's log names the cgroup that was full.
    containers.wait_until(f"dmesg | grep -q 'oom-kill:constraint=CONSTRAINT_MEMCG.*{identity}'", 5)


@pytest.fixture(scope="module")
def measuring(installed: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The host with the tests and benchmarks on it, and grow.c, which it need not be able to compile."""
    built = tmp_path_factory.mktemp("built")
    build(str(built / "grow"))
    installed.put(built, ["grow"], f"{SOURCES}/built")
    installed.put(ROOT, ["benchmarks", "tests", "pyproject.toml"], SOURCES)
    return installed


def in_sources(command: str) -> str:
    return f"cd {SOURCES}\nESCRA_GROW={SOURCES}/built/grow /opt/escra/bin/python -m {command}"


def test_growth_episodes_survive(measuring: Host) -> None:
    benchmark = in_sources("benchmarks oom --quick --rate 1024 --json")
    said: dict[str, Any] = json.loads(measuring.output(benchmark, timeout=280))
    assert said["cgroup"] == "v2"
    for row in said["rates"]:
        assert (row["killed_without"], row["killed_with"]) == (row["episodes"], 0), said
    assert said["exhausted"] == {"killed": ["grower"], "survived": ["left", "right"]}
    assert said["omega_violations"] == 0


def test_the_kernel_tests_of_memory_pass_here(measuring: Host) -> None:
    """They are written for both versions of cgroups; `make test` runs them on the one it finds."""
    install = "pip install --quiet --disable-pip-version-check -c constraints.txt pytest hypothesis"
    # What is installed has no pip of its own.
    measuring.run(f"{in_sources('ensurepip')} >/dev/null\n{in_sources(install)}", timeout=200)
    names = ("memory", "memory_cuts", "memory_failures", "oom")
    files = " ".join(f"tests/kernel/test_{name}.py" for name in names)
    command = in_sources(f"pytest -q -p no:cacheprovider {files} -k 'not growth_is_no_kill'")
    done = measuring.run(command, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:]
