"""The README's tour, word by word, and how long it takes."""

import time

import pytest

from tests.host.conftest import IMAGE, ROOT, SOURCES, configure
from tests.host.target import Host

pytestmark = pytest.mark.host

# Without the installation: unpacking Python's libraries says how fast a host is, not what Escra does on it.
MOST_S = 60.0
MOST_COMMANDS = 5


def commands() -> list[str]:
    """The first indented lines of the tour; what follows is what they print."""
    section = (ROOT / "README.md").read_text().partition("## Tour\n")[2].partition("\n## ")[0]
    paragraphs = (paragraph.splitlines() for paragraph in section.split("\n\n"))
    first = next(lines for lines in paragraphs if all(line.startswith("    ") for line in lines))
    return [line.strip() for line in first]


def test_from_a_fresh_host_to_the_first_report(installed: Host) -> None:
    install, enable, run, *wait, report = commands()
    assert len(commands()) <= MOST_COMMANDS
    assert install == "make install", "it was run, and its time taken, by the fixture"
    host = installed
    host.run(f"docker tag {IMAGE} busybox; systemctl disable --now escra-controller escra-agent", check=False)
    for daemon in ("controller", "agent"):  # as the installation left them
        host.run(f"cp {SOURCES}/systemd/{daemon}.example.toml /etc/escra/{daemon}.toml")
    try:
        began = time.monotonic()
        for line in (enable, run, *wait):
            host.run(line)
        said = host.output(report)
        took_s = time.monotonic() - began
        print(f"make install {host.install_s:.1f} s, the rest {took_s:.1f} s\n{said}")
        assert took_s < MOST_S
        assert "Only observed: Escra would have" in said
        assert ">web<" in host.output("cat escra-report.html")
        pid = host.output("docker inspect -f '{{.State.Pid}}' web")
        assert host.output(f"cat /sys/fs/cgroup$(cut -d: -f3 /proc/{pid}/cgroup)/cpu.max") == "50000 100000"
    finally:
        host.run("docker rm -f web; docker rmi busybox", check=False)
        configure(host)
        host.run("systemctl restart escra-controller escra-agent")
