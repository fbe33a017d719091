"""The Debian package, from `make deb` here to `apt purge` on the host."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import REMOVE, ROOT, remove_containers, start_container, traces
from tests.host.target import Host
from tests.needs import unavailable

pytestmark = pytest.mark.host

ORIGINAL = "20000 100000"
FOLDER = "/var/tmp/escra-package"
NEXT = "99.0"
UNITS = ("escra-controller", "escra-agent")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The package, and the same one with a higher version."""
    if not (shutil.which("dh") and shutil.which("lintian")):
        unavailable("docker", "no debhelper and lintian here to make a package with")
    done = subprocess.run(
        ["make", "--no-print-directory", "deb"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = ROOT / done.stdout.splitlines()[-1]
    folder = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "--raw-extract", str(made), str(folder / "tree")], check=True)
    control = folder / "tree" / "DEBIAN" / "control"
    lines = control.read_text().splitlines()
    control.write_text(
        "".join(f"Version: {NEXT}\n" if line.startswith("Version:") else f"{line}\n" for line in lines)
    )
    newer = folder / "newer.deb"
    build = ["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", str(folder / "tree"), str(newer)]
    subprocess.run(build, check=True, capture_output=True)
    return [made, newer]


@pytest.fixture(scope="module")
def host(bare_host: Host, packages: list[Path]) -> Iterator[Host]:
    """With both packages on it, as ``old.deb`` and ``new.deb``; nothing is installed."""
    try:
        for package, name in zip(packages, ("old.deb", "new.deb"), strict=True):
            bare_host.put(package.parent, [package.name], FOLDER)
            bare_host.run(f"mv {FOLDER}/{package.name} {FOLDER}/{name}")
        yield bare_host
    finally:
        bare_host.run(f"{REMOVE}\nrm -rf {FOLDER}", check=False, timeout=120)


def dpkg(host: Host, arguments: str) -> str:
    return host.output(f"DEBIAN_FRONTEND=noninteractive dpkg {arguments}", timeout=180)


def test_from_the_installation_to_the_purge(host: Host) -> None:
    """Installed it runs, upgraded it keeps limits, removed it gives them back, purged it is gone."""
    dpkg(host, f"-i {FOLDER}/old.deb")
    for unit in UNITS:
        assert host.output(f"systemctl is-active {unit}; systemctl is-enabled {unit}").split() == [
            "active",
            "enabled",
        ]
    assert host.output("stat -c %U:%G /run/escra/controller.sock").endswith(":escra")
    assert host.output("dpkg-query -W -f '${Conffiles}' escra").split()[::2] == [
        "/etc/escra/agent.toml",
        "/etc/escra/controller.toml",
    ]
    try:
        group = start_container(host, "packaged", cpus=0.2)
        host.wait_until(f'! grep -qx "{ORIGINAL}" {group.folder}/cpu.max', 15)
        incarnation = "docker inspect -f '{{.State.Pid}} {{.RestartCount}}' packaged"
        born = host.output(incarnation)

        pids = f"systemctl show -P MainPID {' '.join(UNITS)}"
        before = host.output(pids).split()
        host.run("sed -i 's/^cpu = .*/cpu = \"0.7\"/' /etc/escra/controller.toml")
        limits = host.output(
            f"""
            cd {group.folder}
            dpkg -i {FOLDER}/new.deb >{FOLDER}/log 2>&1 & upgrade=$!
            while kill -0 $upgrade 2>/dev/null; do cat cpu.max; sleep 0.1; done >{FOLDER}/limits
            wait $upgrade
            sort -u {FOLDER}/limits
            """,
            timeout=180,
        ).split("\n")
        assert all(limits)
        assert ORIGINAL not in limits, "its limit was given back by the upgrade"
        assert host.output("dpkg-query -W -f '${Version} ${Status}' escra") == f"{NEXT} install ok installed"
        after = host.output(pids).split()
        assert len(set(before) | set(after)) == 4, "both run the new version"
        assert host.output("grep '^cpu =' /etc/escra/controller.toml") == 'cpu = "0.7"'
        host.wait_until("escra ps --json | grep -q '\"managed\"'", 15)
        assert host.output(incarnation) == born

        dpkg(host, "--remove escra")
        originals = f"cat {group.folder}/cpu.max {group.folder}/memory.max"
        assert host.output(originals).split("\n") == [ORIGINAL, "max"]
        host.run("systemctl daemon-reload")
        assert host.output(originals).split("\n") == [ORIGINAL, "max"], "systemd remembers another limit"
        assert host.output(incarnation) == born
        host.run("test -s /etc/escra/agent.toml; test -d /var/lib/escra-agent; test ! -e /usr/lib/escra")

        dpkg(host, "--purge escra")
        assert traces(host) == []
    finally:
        remove_containers(host)
