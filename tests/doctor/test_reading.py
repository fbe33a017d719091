"""What the doctor reads: made-up trees, real certificates, a real controller."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pair import Pair, free_port, running_pair
from escra_common.lock import Lock
from escra_common.tls import TlsConfig
from escra_controller.doctor.reaching import ask_socket, reach, read_metrics
from escra_controller.doctor.readdocker import read_docker
from escra_controller.doctor.readhost import followed, read_host
from escra_controller.doctor.readservices import check_config, read_daemon, read_folder, read_tls, resolve
from tests.pki_files import Authority, section

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 23 0:28 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory\n"
)
DEBIAN = {
    "proc/sys/kernel/osrelease": "6.1.0-28-amd64\n",
    "proc/self/mountinfo": V2,
    "proc/meminfo": "MemTotal:  2000 kB\nSwapTotal:  1024 kB\n",
    "proc/sys/fs/file-nr": "1216\t0\t9223372\n",
    "proc/pressure/cpu": "",
    "proc/1/comm": "systemd\n",
    "proc/77/comm": "systemd-oomd\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids\n",
    "sys/fs/cgroup/system.slice/cgroup.subtree_control": "cpu memory pids\n",
    "sys/fs/cgroup/system.slice/cpu.max": "max 100000\n",
    "sys/fs/cgroup/system.slice/cpu.max.burst": "0\n",
    "sys/fs/cgroup/system.slice/memory.swap.max": "max\n",
    "sys/fs/cgroup/system.slice/docker-1.scope/cpu.max": "max 100000\n",
    "run/systemd/system/docker-1.scope.d/90-escra.conf": "",
    "run/systemd/system/docker-2.scope.d/90-escra.conf": "",
    "run/systemd/system/docker-3.scope.d/50-CPUQuota.conf": "",
}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_debian_host(tmp_path: Path) -> None:
    host = read_host(tree(tmp_path, DEBIAN))
    assert (host.version, host.cgroup, host.systemd) == ((6, 1), "v2", True)
    assert host.controllers == host.handed_down == frozenset({"cpu", "memory"})
    assert (host.quota, host.burst, host.swap_limits, host.pressure) == (True, True, True, True)
    assert (host.swap_total_bytes, host.open_files, host.clock_source) == (1 << 20, (1216, 9223372), "tsc")
    assert host.processes == {"systemd", "systemd-oomd"}
    assert host.clock_synchronised is None
    assert followed(tmp_path) == {"docker-1.scope": True, "docker-2.scope": False}


def test_what_systemd_does_not_hand_down_is_missed(tmp_path: Path) -> None:
    files = DEBIAN | {"sys/fs/cgroup/system.slice/cgroup.subtree_control": "memory pids\n"}
    assert read_host(tree(tmp_path, files)).handed_down == frozenset({"memory"})


def test_a_host_with_v1_and_no_swap_accounting(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V1,
        "proc/sys/kernel/osrelease": "4.19.0",
        "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": "1\n",
    }
    host = read_host(tree(tmp_path, files))
    assert (host.cgroup, host.version, host.handed_down) == ("v1", (4, 19), None)
    assert (host.quota, host.burst, host.swap_limits) == (True, False, False)
    assert (host.systemd, host.pressure) == (False, False)
    assert read_host(tree(tmp_path, {"proc/self/mountinfo": V1 + V2})).cgroup == "hybrid"


def test_an_empty_tree_is_no_reason_to_fail(tmp_path: Path) -> None:
    host = read_host(tmp_path)
    assert (host.cgroup, host.controllers, host.quota, host.open_files) == ("", frozenset(), None, None)
    assert followed(tmp_path) == {}


def test_this_machine() -> None:
    host = read_host()
    assert host.version > (3, 0)
    assert "/".join(map(str, host.version)).replace("/", ".") == ".".join(os.uname().release.split(".")[:2])
    assert host.clock_synchronised in (True, False)
    assert host.processes


def test_a_state_directory(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    os.utime(tmp_path / "new", (4e9, 4e9))
    tmp_path.chmod(0o750)
    folder = read_folder(tmp_path)
    assert (folder.mode, folder.read_only, folder.exists) == (0o750, False, True)
    assert folder.ahead_s > 1e9
    assert not read_folder(tmp_path / "nowhere").exists


# ---- configuration and certificates ------------------------------------------------


@pytest.mark.parametrize("name", ["agent", "controller"])
def test_the_daemons_check_their_own_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text("")
    config, error = check_config(name, path)
    assert config is not None
    assert error == ""
    path.write_text("stat_dir = 'x'\n")
    assert check_config(name, path) == (None, f"{path}: unknown key 'stat_dir'; did you mean 'state_dir'?")


def test_a_daemon_is_found_by_its_file_and_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    assert read_daemon("agent", path, systemd=False) is None
    path.write_text(f'state_dir = "{tmp_path}/state"\n')
    found = read_daemon("agent", path, systemd=False)
    assert found is not None
    assert not found.running
    assert not (tmp_path / "state").exists(), "looking changes nothing"
    lock = Lock(tmp_path / "state" / "lock")
    assert lock.try_acquire()
    found = read_daemon("agent", path, systemd=False)
    lock.release()
    assert found is not None
    assert found.lock_holder == os.getpid()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def test_certificates(authority: Authority) -> None:
    good = authority.issue("controller", "ctl", "127.0.0.1")
    tls = read_tls(good, None, server=True)
    assert (tls.error, tls.unseen, tls.key_mode, len(tls.ends)) == ("", "", 0o600, 2)
    assert "does not work as an agent's certificate" in read_tls(good, None, server=False).error
    gone = TlsConfig(good.ca, good.cert, "/nowhere/key")
    assert read_tls(gone, None, server=True).error == "[tls] /nowhere/key: No such file or directory"


def test_credentials_are_found_where_the_unit_takes_them_from(authority: Authority) -> None:
    good = authority.issue("controller", "ctl", "127.0.0.1")
    names = TlsConfig("ca", "cert", "key")
    unit = {"LoadCredential": f"ca:{good.ca} cert:{good.cert} key:{good.key}"}
    assert resolve(names, unit) == good
    assert read_tls(names, unit, server=True).error == ""
    assert "the credential 'ca'" in read_tls(names, {}, server=True).unseen


def test_no_docker() -> None:
    assert read_docker("/nowhere.sock").error == "there is no such socket"


# ---- a real controller -------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Iterator[Pair]:
    controller, agent = authority.issue("controller", "ctl", "127.0.0.1"), authority.issue("agent", "host-1")
    with running_pair("", "", start=False, metrics=True) as made:
        made.write_config("controller", f"grace_s = 0\n{section(controller)}")
        made.write_config("agent", f"[docker]\nenabled = false\n{section(agent)}")
        made.start("controller")
        made.wait_until(lambda: bool(made.ask("status")), "the controller answers")
        yield made


def test_a_controller_says_who_it_is(pair: Pair, authority: Authority) -> None:
    answer = reach(f"127.0.0.1:{pair.port}", authority.issue("agent", "host-1"))
    assert (answer.error, answer.standby) == ("", False)
    assert answer.software.startswith("escra ")


def test_why_a_controller_does_not_answer(pair: Pair, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").issue("agent", "host-1")
    assert "certificate not accepted" in reach(f"127.0.0.1:{pair.port}", stranger).error
    known = authority.issue("agent", "host-1")
    not_by_this_name = reach(f"127.0.0.2:{pair.port}", known).error
    assert "not accepted" in not_by_this_name or "refused" in not_by_this_name
    assert "refused" in reach(f"127.0.0.1:{free_port()}", known).error
    assert reach(f"127.0.0.1:{pair.port}", None).error


def test_the_socket_and_the_page(pair: Pair) -> None:
    assert ask_socket(pair.control, "escra").problems == []
    assert "not running" in ask_socket(pair.folder / "nowhere", "escra").error
    assert read_metrics(pair.metrics) == ""
    assert "no answer" in read_metrics(f"127.0.0.1:{free_port()}")


def test_the_command(pair: Pair) -> None:
    files = {path: path.stat().st_mtime_ns for path in pair.folder.rglob("*") if "log" not in path.name}
    command = [sys.executable, "-m", "escra_controller.cli", "doctor", "--json"]
    command += [
        "--agent",
        str(pair.folder / "agent.toml"),
        "--controller",
        str(pair.folder / "controller.toml"),
    ]
    state = os.environ | {"STATE_DIRECTORY": str(pair.folder / "controller-state")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=state)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(row.keys() == {"check", "severity", "found", "advice"} for row in rows)
    by_check = {row["check"]: row for row in rows}
    assert by_check["agent-config"]["severity"] == by_check["controller-config"]["severity"] == "ok"
    assert by_check["reach"]["found"].endswith("it leads")
    assert by_check["controller-tls"]["severity"] == by_check["agent-tls"]["severity"] == "ok"
    worst = {row["severity"] for row in rows}
    assert done.returncode == (1 if "bad" in worst else 5 if "warn" in worst else 0)
    assert {path: path.stat().st_mtime_ns for path in files} == files, "looking changes nothing"
