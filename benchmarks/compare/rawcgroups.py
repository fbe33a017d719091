"""An application as processes in cgroups of their own, without an engine: the variant for quick runs."""

import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.compare.applications import APP, Design
from benchmarks.compare.designs import BARE
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import BUSYBOX, KernelCgroup

ROOT = Path(__file__).parents[2]
START_S = 20.0


class RawApplication:
    """Below one parent cgroup, each service in one of its own; one that is killed begins again."""

    def __init__(self, design: Design, hierarchy: Hierarchy, folder: Path) -> None:
        self.design = design
        self.parent = KernelCgroup(hierarchy)
        self.containers: dict[str, KernelCgroup] = {}
        self._folder = folder
        self._ports = dict(zip(design.services, _free_ports(len(design.services)), strict=True))

    def start(self) -> None:
        """Raises TimeoutError with what the services said."""
        ports = json.dumps(self._ports)
        for name in self.design.services:
            group = self.containers[name] = self.parent.child(name)
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
    def entry(self) -> str:
        return f"tcp://127.0.0.1:{self._ports[self.design.entry]}"

    @property
    def agent_toml(self) -> str:
        entries = [
            f'[[cgroup]]\npath = "{group.path}"\napp = "{APP}"\nname = "{name}"\n'
            for name, group in self.containers.items()
        ]
        return "[docker]\nenabled = false\n" + "".join(entries)


class RawCgroups:
    """As a place."""

    name = "bare cgroups"
    designs = BARE

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy

    @contextmanager
    def running(self, design: Design) -> Iterator[RawApplication]:
        with tempfile.TemporaryDirectory(prefix="escra-compare-") as folder:
            application = RawApplication(design, self.hierarchy, Path(folder))
            try:
                application.start()
                yield application
            finally:
                application.parent.remove()


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
