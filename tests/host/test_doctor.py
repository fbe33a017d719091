"""The doctor and Prometheus' page on an installed host."""

import pytest

from tests.host.conftest import StartContainer
from tests.host.target import Host

pytestmark = pytest.mark.host


def findings(host: Host, *, status: tuple[int, ...]) -> dict[str, dict[str, str]]:
    done = host.run("/opt/escra/bin/escra doctor --json", check=False)
    assert done.returncode in status, done.stdout + done.stderr
    rows = host.json("/opt/escra/bin/escra doctor --json || true")
    return {row["check"]: row for row in rows}


def test_an_installed_host_has_nothing_bad(host: Host, start: StartContainer) -> None:
    host.run("systemctl enable -q escra-agent escra-controller")
    start("examined", busy=False)
    found = findings(host, status=(0, 5))
    host.run("systemctl disable -q escra-agent escra-controller")
    assert [row for row in found.values() if row["severity"] == "bad"] == []
    for check in (
        "cgroup",
        "controllers",
        "docker",
        "agent-service",
        "controller-service",
        "reach",
        "metrics",
    ):
        assert found[check]["severity"] == "ok", found[check]
    assert "systemd" in found["docker"]["found"]


def test_a_stopped_agent_is_bad(host: Host) -> None:
    host.run("systemctl stop escra-agent")
    try:
        found = findings(host, status=(1,))
    finally:
        host.run("systemctl start escra-agent")
        host.wait_until("/opt/escra/bin/escra agents --json | grep -q '\"connected\"'", 10)
    assert found["agent-service"]["severity"] == "bad"
    assert found["agent-service"]["advice"] == "systemctl enable --now escra-agent"


def test_the_page_is_served_out_of_the_sandbox(host: Host) -> None:
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9737/metrics').read().decode())"
    page = host.output(f'python3 -c "{read}"')
    assert "escra_build_info{" in page
    assert "escra_agent_connected{" in page
    assert "process_resident_memory_bytes " in page, "also where /proc/stat is hidden"
