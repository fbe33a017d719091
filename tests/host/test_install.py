"""What systemd says about the installed units."""

import re

import pytest

from tests.host.conftest import SOURCES, Group, StartContainer
from tests.host.target import Host

pytestmark = pytest.mark.host

UNITS = ("escra-controller", "escra-agent")
CAP_DAC_OVERRIDE = 1 << 1


def show(host: Host, unit: str) -> dict[str, str]:
    lines = host.output(f"systemctl show {unit}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_active_and_tells_its_status(host: Host, unit: str) -> None:
    host.wait_until(f"systemctl show -P StatusText {unit} | grep -q .", 3)
    facts = show(host, unit)
    assert (facts["ActiveState"], facts["SubState"], facts["NRestarts"]) == ("active", "running", "0")
    assert re.search(r'Status: "\w.*"', host.output(f"systemctl status --no-pager -l {unit}"))


def test_the_agents_status_counts_containers(host: Host, start: StartContainer) -> None:
    start("counted", busy=False)
    host.wait_until("systemctl show -P StatusText escra-agent | grep -q 'containers: 1'", 5)


@pytest.mark.parametrize(
    ("unit", "capabilities"), [("escra-controller", 0), ("escra-agent", CAP_DAC_OVERRIDE)]
)
def test_neither_is_root(host: Host, unit: str, capabilities: int) -> None:
    status = host.output(f"cat /proc/$(systemctl show -P MainPID {unit})/status")
    assert int(re.findall(r"(?m)^Uid:\t(\d+)", status)[0]) > 0
    assert int(re.findall(r"(?m)^CapEff:\t(\w+)", status)[0], 16) == capabilities
    assert int(re.findall(r"(?m)^CapBnd:\t(\w+)", status)[0], 16) == capabilities


def test_the_agent_is_scheduled_before_the_containers(host: Host) -> None:
    # Once it has found the containers.
    host.wait_until("chrt --pid $(systemctl show -P MainPID escra-agent) | grep -q SCHED_RR", 5)


def test_only_the_controller_listens_and_only_on_loopback(host: Host) -> None:
    listening = host.output("ss -Hltnp")
    for unit in UNITS:
        pid = host.output(f"systemctl show -P MainPID {unit}")
        addresses = [line.split()[3] for line in listening.splitlines() if f"pid={pid}," in line]
        if unit == "escra-agent":
            assert addresses == []
        else:
            assert "127.0.0.1:7737" in addresses
            assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_the_control_socket_belongs_to_the_group(host: Host) -> None:
    assert host.output("stat -c '%G %a' /run/escra/controller.sock") == "escra 660"
    member = "setpriv --reuid nobody --regid nogroup --groups escra /opt/escra/bin/escra ps --json"
    assert host.run(member).returncode == 0
    stranger = host.run(member.replace("--groups escra", "--clear-groups"), check=False)
    assert stranger.returncode == 1
    assert "group escra" in stranger.stderr


def test_the_installed_units_verify(host: Host) -> None:
    paths = " ".join(f"/etc/systemd/system/{unit}.service" for unit in UNITS)
    assert host.output(f"systemd-analyze verify --man=no {paths} 2>&1") == ""


def test_check_config_accepts_what_is_installed(host: Host) -> None:
    for unit in UNITS:
        host.run(f"/opt/escra/bin/{unit} check-config")


def test_the_shipped_examples_are_accepted(host: Host) -> None:
    for unit in UNITS:
        example = f"{SOURCES}/systemd/{unit.removeprefix('escra-')}.example.toml"
        host.run(f"/opt/escra/bin/{unit} check-config --config {example}")


def test_a_configuration_that_cannot_be_used_stays_down(host: Host) -> None:
    host.run("cp /etc/escra/controller.toml /run/escra-test.toml")
    try:
        host.write("/etc/escra/controller.toml", "[lissten]\n")
        host.run("systemctl restart escra-controller", check=False)
        host.wait_until("systemctl is-failed --quiet escra-controller", 5)
        facts = show(host, "escra-controller")
        assert facts["ExecMainStatus"] == "78"
        assert facts["NRestarts"] == "0"
        said = host.output("journalctl -u escra-controller -n 20 -o cat")
        assert "lissten" in said
        assert "listen" in said
    finally:
        host.run("mv /run/escra-test.toml /etc/escra/controller.toml; systemctl restart escra-controller")
        host.wait_until("/opt/escra/bin/escra agents --json | grep -q '\"connected\"'", 10)


def test_group_is_what_the_kernel_says(start: StartContainer) -> None:
    group: Group = start("where", busy=False)
    assert group.folder.startswith("/sys/fs/cgroup/system.slice/docker-")
