"""When parts fail on a real host: hangs, kills, stops; and limits that come back."""

import pytest

from tests.host.conftest import StartContainer, configure
from tests.host.target import Host

pytestmark = pytest.mark.host

ORIGINAL = "20000 100000"  # --cpus 0.2


def quota_above(folder: str, usec: int) -> str:
    return f"test $(cut -d' ' -f1 {folder}/cpu.max) -gt {usec}"


def restarted(pid: str) -> str:
    """The condition that another process than ``pid`` is the agent, and ready."""
    # Both in one answer: between two questions the first agent may end.
    show = "systemctl show -p ActiveState -p MainPID escra-agent | sort | tr '\\n' ' '"
    return f"{show} | grep -v 'MainPID={pid} \\|MainPID=0 ' | grep -q '^ActiveState=active '"


def agent_is_linked(host: Host, seconds: float = 10) -> None:
    host.wait_until("/opt/escra/bin/escra agents --json | grep -q '\"connected\"'", seconds)


def test_a_hung_agent_is_replaced_by_the_watchdog(host: Host, start: StartContainer) -> None:
    web = start("watched", cpus=0.2)
    host.wait_until(quota_above(web.folder, 30000), 10)
    pid = host.output("systemctl show -P MainPID escra-agent")
    host.run(f"kill -STOP {pid}")
    host.wait_until(restarted(pid), 25)
    assert host.output("systemctl show -P NRestarts escra-agent") != "0"
    agent_is_linked(host)
    assert host.run(quota_above(web.folder, 20000), check=False).returncode == 0, "its limit was lost"


def test_originals_outlive_a_kill_and_restore_puts_them_back(host: Host, start: StartContainer) -> None:
    web = start("killed", cpus=0.2)
    host.wait_until(quota_above(web.folder, 30000), 10)
    pid = host.output("systemctl show -P MainPID escra-agent")
    host.run(f"kill -9 {pid}")
    host.wait_until(restarted(pid), 10)
    agent_is_linked(host)
    assert host.output(f"cat {web.folder}/cpu.max") != ORIGINAL
    host.run("systemctl stop escra-agent")
    try:
        assert host.output(f"cat {web.folder}/cpu.max") != ORIGINAL, "on_stop is hold"
        host.run("/opt/escra/bin/escra-agent restore")
        assert host.output(f"cat {web.folder}/cpu.max") == ORIGINAL
    finally:
        host.run("systemctl start escra-agent")


def test_stop_puts_the_originals_back_when_told_so(host: Host, start: StartContainer) -> None:
    web = start("restored", cpus=0.2)
    try:
        configure(host, on_stop="restore")
        host.run("systemctl restart escra-agent")
        host.wait_until(quota_above(web.folder, 30000), 10)
        host.run("systemctl stop escra-agent")
        assert host.output(f"cat {web.folder}/cpu.max") == ORIGINAL
    finally:
        configure(host)
        host.run("systemctl start escra-agent")


def test_containers_run_on_without_a_controller(host: Host, start: StartContainer) -> None:
    web = start("orphan", cpus=0.2)
    host.wait_until(quota_above(web.folder, 30000), 10)
    try:
        rows = host.watch([web.folder], 3, first="systemctl stop escra-controller")
        assert all(limit is not None and limit > 0.3 for (limit,) in rows)
        assert host.output("systemctl is-active escra-agent") == "active"
        assert host.run("/opt/escra/bin/escra ps", check=False).returncode == 3
    finally:
        host.run("systemctl start escra-controller")
    agent_is_linked(host)
    assert host.run(quota_above(web.folder, 30000), check=False).returncode == 0
