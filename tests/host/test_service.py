"""The example of a systemd service, as its files say."""

import pytest

from tests.host.conftest import SOURCES, configure
from tests.host.target import Host

pytestmark = pytest.mark.host

EXAMPLE = f"{SOURCES}/systemd/examples/service"
FOLDER = "/sys/fs/cgroup/system.slice/escra-example.service"
ORIGINAL = "10000 100000"


def test_a_service_takes_part_and_gets_its_limit_back(host: Host) -> None:
    try:
        host.run(f"cp {EXAMPLE}/*.service /etc/systemd/system; systemctl daemon-reload")
        host.run("systemctl start escra-example")
        assert host.output(f"cat {FOLDER}/cpu.max") == ORIGINAL
        host.run(f"cat {EXAMPLE}/agent.toml >>/etc/escra/agent.toml; systemctl reload escra-agent")
        host.wait_until(f"test $(cut -d' ' -f1 {FOLDER}/cpu.max) -gt 30000", 15)
        (row,) = [row for row in host.json("/opt/escra/bin/escra ps --json") if row["name"] == "example"]
        assert (row["state"], row["app"]) == ("managed", "shop")
    finally:
        configure(host)
        host.run("systemctl reload escra-agent", check=False)
    try:
        host.wait_until(f'grep -qx "{ORIGINAL}" {FOLDER}/cpu.max', 10)
    finally:
        host.run("systemctl stop escra-example; rm /etc/systemd/system/escra-example.service", check=False)
        host.run("systemctl daemon-reload")
