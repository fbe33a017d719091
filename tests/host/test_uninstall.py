"""`make install` a second time, and `make uninstall`.  The last tests: nothing is installed after them."""

import pytest

from tests.host.conftest import Group, StartContainer, make, traces
from tests.host.target import Host

pytestmark = pytest.mark.host

ORIGINAL = "20000 100000"
UNITS = "escra-controller escra-agent"


def managed(host: Host, start: StartContainer) -> Group:
    """A container that has another limit than it started with."""
    group = start("kept", cpus=0.2)
    host.wait_until(f'! grep -qx "{ORIGINAL}" {group.folder}/cpu.max', 10)
    return group


def test_the_commands_are_where_people_look(host: Host) -> None:
    assert "connected" in host.output("PATH=/usr/local/bin:/usr/bin:/bin escra agents")
    for page in ("1 escra", "8 escra-agent", "8 escra-controller"):
        assert host.output(f"find /usr/local/share/man -name '{page.split()[1]}.{page.split()[0]}'") != ""
    complete = "COMP_WORDS='escra forget ' COMP_CWORD=2 _ESCRA_COMPLETE=bash_complete /usr/local/bin/escra"
    assert host.output(complete) == f"plain,{host.output('hostname')}"
    host.run("bash -n /usr/local/share/bash-completion/completions/escra")


def test_installing_again_is_an_upgrade(host: Host, start: StartContainer) -> None:
    """Configurations stay as they are, and nothing is restarted; it says what to do."""
    group = managed(host, start)
    facts = f"sha256sum /etc/escra/*; systemctl show -P MainPID {UNITS}"
    before = host.output(facts)
    said = make(host, "install")
    assert "systemctl restart escra-controller escra-agent" in said
    assert host.output(facts) == before
    limit = host.output(f"cat {group.folder}/cpu.max")
    host.run(f"systemctl restart {UNITS}")
    assert limit != ORIGINAL
    assert host.output(f"cat {group.folder}/cpu.max") != ORIGINAL, "its limits are kept over the restart"


def test_uninstalling_gives_original_limits_back_and_leaves_nothing(
    host: Host, start: StartContainer
) -> None:
    group = managed(host, start)
    pid = host.output("docker inspect -f '{{.State.Pid}}' kept")
    make(host, "uninstall")
    originals = f"cat {group.folder}/cpu.max {group.folder}/memory.max"
    assert host.output(originals).split("\n") == [ORIGINAL, "max"]
    host.run("systemctl daemon-reload")
    assert host.output(originals).split("\n") == [ORIGINAL, "max"], "systemd remembers another limit"
    assert host.output("docker inspect -f '{{.State.Pid}}' kept") == pid
    left = {line for line in traces(host) if not line.startswith(("escra-agent:", "escra:"))}
    assert left == {
        "/etc/escra",
        "/var/lib/escra-agent",
        "/var/lib/escra-controller",
        "/var/lib/private/escra-controller",
    }
    make(host, "uninstall", PURGE="1")
    assert traces(host) == []
