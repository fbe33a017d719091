"""Throw-away cgroups with real load in them, on either cgroup version."""

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from escra_agent.cgroupfs import Cgroup
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit

BUSYBOX = "/bin/busybox"
_numbers = itertools.count(1)


class FoundCgroup:
    """Somebody else's.  ``path`` is what Hierarchy.open takes."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self.hierarchy = hierarchy
        self.path = path

    @property
    def cpu(self) -> Path:
        """The directory with the CPU files."""
        mount = self.hierarchy.mounts.get("cpu") or str(self.hierarchy.unified)
        return Path(mount, self.path.strip("/"))

    def open(self) -> Cgroup:
        return self.hierarchy.open(self.path)


class KernelCgroup(FoundCgroup):
    """A directory in every hierarchy that matters, and what the test started in it.

    A parent must be made with ``child`` before it gets load of its own: v2 wants processes in the leaves
    only.
    """

    def __init__(self, hierarchy: Hierarchy, path: str | None = None) -> None:
        super().__init__(hierarchy, path or f"escra-test-{os.getpid()}-{next(_numbers)}")
        self.directories = [Path(mount, self.path) for mount in mounts(hierarchy)]
        self.children: list[KernelCgroup] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for directory in self.directories:
            directory.mkdir()
            _inherit_cpuset(directory)

    def child(self, name: str) -> "KernelCgroup":
        if self.hierarchy.version == "v2":
            _enable(self.cpu)
        child = KernelCgroup(self.hierarchy, f"{self.path}/{name}")
        self.children.append(child)
        return child

    def busy(self, n_procs: int = 1) -> None:
        """Processes that want a whole CPU each, until the test is over."""
        for _ in range(n_procs):
            self.start(BUSYBOX, "sh", "-c", "while :; do :; done")

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Runs ``command`` in here from its first page of memory on; killed when the test is over."""
        enter = 'set -e; for file in $ENTER; do echo $$ > "$file"; done; exec "$@"'
        files = [str(directory / "cgroup.procs") for directory in self.directories]
        process = subprocess.Popen(
            [BUSYBOX, "sh", "-c", enter, "sh", *command], env={**os.environ, "ENTER": " ".join(files)}
        )
        self.processes.append(process)
        end = time.monotonic() + 5
        while process.poll() is None and not self._has(process.pid):
            if time.monotonic() > end:
                raise RuntimeError(f"{command} did not enter cgroup {self.path}")
            time.sleep(0.001)
        return process

    def _has(self, pid: int) -> bool:
        return all(str(pid) in (d / "cgroup.procs").read_text().split() for d in self.directories)

    def stop(self) -> None:
        """Kill what was started here, and wait for its end."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.processes.clear()

    def remove(self) -> None:
        """With children and processes; does nothing where that was done already."""
        while self.children:
            self.children.pop().remove()
        self.stop()
        for directory in self.directories:
            with contextlib.suppress(FileNotFoundError):
                _rmdir(directory)


@contextlib.contextmanager
def throwaway(hierarchy: Hierarchy) -> Iterator[KernelCgroup]:
    cgroup = KernelCgroup(hierarchy)
    try:
        yield cgroup
    finally:
        cgroup.remove()


@contextlib.contextmanager
def controllers_enabled(hierarchy: Hierarchy) -> Iterator[None]:
    """v2 gives a cgroup CPU files only where its parent says so; the root is left as it was found."""
    if hierarchy.version != "v2":
        yield
        return
    enabled = _enable(Path(str(hierarchy.unified)))
    try:
        yield
    finally:
        for controller in enabled:
            # Somebody else may have come to use it meanwhile.
            with contextlib.suppress(OSError):
                Path(str(hierarchy.unified), "cgroup.subtree_control").write_text(f"-{controller}")


def whats_missing(hierarchy: Hierarchy) -> str | None:
    """Why this machine cannot run tests on its cgroups; None when it can."""
    if not Path(BUSYBOX).exists():
        return f"{BUSYBOX} is not installed (Debian: busybox-static)"
    for mount in mounts(hierarchy):
        if not os.access(mount, os.W_OK) or os.statvfs(mount).f_flag & os.ST_RDONLY:
            return f"{mount} is not writable; run as root on a host or in a privileged container"
    return None


def try_out(hierarchy: Hierarchy) -> None:
    """Raises EscraError or OSError when a new cgroup cannot be limited here."""
    with throwaway(hierarchy) as cgroup:
        opened = cgroup.open()
        opened.write_limit(limit(0.5))
        opened.close()


def mounts(hierarchy: Hierarchy) -> list[str]:
    """The mount points of all controllers in use, each once (cpu and cpuacct are often one)."""
    return sorted(set(hierarchy.mounts.values())) or [str(hierarchy.unified)]


def cores_used(cgroup: Cgroup, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> float:
    """CPU time per wall time over ``seconds``, in which ``meanwhile`` is called every 50 ms."""
    first = cgroup.read()
    start = time.monotonic()
    for step in range(1, round(seconds / 0.05) + 1):
        meanwhile()
        time.sleep(max(0.0, start + 0.05 * step - time.monotonic()))
    last = cgroup.read()
    return (last.usage_usec - first.usage_usec) / (last.time_usec - first.time_usec)


def limit(cores: float, period_usec: int = 100_000, burst_usec: int = 0) -> CpuLimit:
    return CpuLimit(round(cores * period_usec), period_usec, burst_usec)


def _enable(directory: Path) -> list[str]:
    """Enable for the children what is there to enable; the controllers that were not enabled before."""
    control = directory / "cgroup.subtree_control"
    wanted = {"cpu", "cpuset", "memory"} & set((directory / "cgroup.controllers").read_text().split())
    missing = sorted(wanted - set(control.read_text().split()))
    for controller in missing:
        control.write_text(f"+{controller}")
    return missing


def _inherit_cpuset(directory: Path) -> None:
    # A new v1 cpuset is empty, and takes no process while it is.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (directory / "cpuset.effective_cpus").exists():
            (directory / name).write_text((directory.parent / name).read_text())


def _rmdir(directory: Path) -> None:
    """A process that was killed and waited for may still be leaving its cgroup."""
    for _ in range(100):
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        try:
            directory.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return
    directory.rmdir()
