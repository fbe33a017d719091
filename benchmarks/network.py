"""Network namespaces as hosts: each has one address on a network of its own that leads nowhere else."""

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kernel_cgroups import BUSYBOX

NAMESPACES = Path("/run/netns")
_numbers = itertools.count(1)


class NoNetwork(RuntimeError):
    """This machine cannot make network namespaces, or not these."""


class Network:
    """Hosts on one switch.  ``part`` moves some of them to a second one: nothing passes between the two,
    and nobody is told, as when a cable between two rooms is cut."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._tag = f"escra-{os.getpid()}-{next(_numbers)}"
        self._switch = f"{self._tag}-switch"
        self._ports = {host: f"port{n}" for n, host in enumerate(hosts)}
        self._made: list[str] = []

    def make(self) -> None:
        """Raises NoNetwork."""
        self._add(self._switch)
        for bridge in ("here", "there"):
            self._in_switch("link", "add", bridge, "type", "bridge")
            self._in_switch("link", "set", bridge, "up")
        for host, port in self._ports.items():
            space = self._space(host)
            self._add(space)
            self._in_switch("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._in_switch("link", "set", port, "master", "here", "up")
            _ip("-n", space, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """The devices in a namespace go with it; it goes when its last process has ended."""
        while self._made:
            _ip("netns", "del", self._made.pop())

    def address(self, host: str) -> str:
        return f"10.77.0.{list(self._ports).index(host) + 1}"

    def add_addresses(self, host: str, count: int) -> list[str]:
        """More addresses for one host, beside its first."""
        extra = [f"10.77.0.{100 + n}" for n in range(count)]
        for address in extra:
            _ip("-n", self._space(host), "address", "add", f"{address}/24", "dev", "eth0")
        return extra

    def enter(self, host: str) -> list[str]:
        """What to put before a command to run it on ``host``; the process stays the same one.

        The cgroup mounts stay visible, which ``ip netns exec`` would hide.  The host's name is its own.
        """
        rename = 'hostname "$0" && exec "$@"'
        space = NAMESPACES / self._space(host)
        return ["nsenter", f"--net={space}", "unshare", "--uts", BUSYBOX, "sh", "-c", rename, host]

    def part(self, *hosts: str) -> None:
        for host in hosts:
            self._in_switch("link", "set", self._ports[host], "master", "there")

    def heal(self) -> None:
        for port in self._ports.values():
            self._in_switch("link", "set", port, "master", "here")

    def _space(self, host: str) -> str:
        return f"{self._tag}-{host}"

    def _add(self, space: str) -> None:
        _ip("netns", "add", space)
        self._made.append(space)
        _ip("-n", space, "link", "set", "lo", "up")

    def _in_switch(self, *arguments: str) -> None:
        _ip("-n", self._switch, *arguments)


@contextmanager
def running_network(hosts: Sequence[str]) -> Iterator[Network]:
    network = Network(hosts)
    try:
        network.make()
        yield network
    finally:
        network.remove()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
