"""An application as processes in cgroups of their own, without an engine: the variant for quick runs."""

import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.compare.applications import Design
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import BUSYBOX, KernelCgroup

ROOT = Path(__file__).parents[2]
START_S = 20.0


class RawApplication:
    """Below one parent cgroup, each service in one of its own; one that is killed begins again."""

    def __init__(self, design: Design, hierarchy: Hierarchy, folder: Path) -> None:
        self.design = design
        self._hierarchy = hierarchy
        self._folder = folder
        self._parent: KernelCgroup | None = None
        self._containers: dict[str, KernelCgroup] = {}
        self._ports: dict[str, int] = {}

    def start(self) -> None:
        """Raises TimeoutError with what the services said."""
        self._parent = KernelCgroup(self._hierarchy)
        self._ports = dict(zip(self.design.services, _free_ports(len(self.design.services)), strict=True))
        ports = json.dumps(self._ports)
        for name in self.design.services:
            group = self._containers[name] = self._parent.child(name)
            log = self._folder / f"{name}.log"
            python = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "benchmarks.compare.service")
            again = f'while :; do "$@"; done >>{log} 2>&1'
            group.start(BUSYBOX, "sh", "-c", again, "sh", *python, name, ports)
        end = time.monotonic() + START_S
        for name, port in self._ports.items():
            while not _answers(port):
                if time.monotonic() > end:
                    said = (self._folder / f"{name}.log").read_text()
                    raise TimeoutError(f"service {name} does not listen after {START_S:g} s\n{said}")
                time.sleep(0.02)

    @property
    def entry(self) -> int:
        return self._ports[self.design.entry]

    @property
    def containers(self) -> Mapping[str, KernelCgroup]:
        return self._containers

    @property
    def parent(self) -> KernelCgroup:
        assert self._parent is not None  # start() was called
        return self._parent

    def logs(self) -> Path:
        return self._folder

    def stop(self) -> None:
        if self._parent is not None:
            self._parent.remove()


@contextmanager
def running(design: Design, hierarchy: Hierarchy, folder: Path) -> Iterator[RawApplication]:
    application = RawApplication(design, hierarchy, folder)
    try:
        application.start()
        yield application
    finally:
        application.stop()


def _free_ports(count: int) -> list[int]:
    """All at once, so that none is given twice."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
