"""A Docker Engine of the tests' own: nothing of it is shared with one that was there before."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.kernel_cgroups import BUSYBOX

IMAGE = "escra-test/busybox"
_START_S = 30.0


class EngineTrouble(RuntimeError):
    """The engine did not start, or refused a command."""


class DockerEngine:
    """``socket`` is its address.  ``start`` and ``stop`` may be called in turns.

    ``storage`` is the driver: vfs works everywhere, and copies the whole image for every container.
    """

    def __init__(self, root: Path, cgroup_parent: str, storage: str = "vfs") -> None:
        self.root = root
        self._storage = storage
        self.socket = f"unix://{root}/docker.sock"
        self.cgroup_parent = cgroup_parent
        self._process: subprocess.Popen[bytes] | None = None
        (root / "daemon.json").write_text("{}")

    def start(self) -> None:
        if self._process is not None:
            return
        with (self.root / "dockerd.log").open("ab") as log:
            # In a session of its own: Ctrl-C is for who started it, who ends it in its turn.
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_S
        while self._docker("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > end:
                raise EngineTrouble(f"dockerd did not start:\n{self.log()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Its containers stop with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def docker(self, *arguments: str) -> str:
        """Runs the client; what it prints, stripped.  Raises EngineTrouble with its message."""
        done = self._docker(*arguments)
        if done.returncode != 0:
            # A command in a container may tell its trouble either way, or be killed and tell nothing.
            said = "\n".join(filter(None, (done.stderr.strip(), done.stdout.strip()[-1000:])))
            raise EngineTrouble(f"docker {' '.join(arguments)}: status {done.returncode}: {said}")
        return done.stdout.strip()

    def run(self, *options: str, name: str | None = None, script: str = "exec sleep 1000000") -> str:
        """A detached container that runs a shell ``script``; the container's id."""
        named = ("--name", name) if name else ()
        return self.docker("run", "--detach", "--init", *named, *options, IMAGE, "/bin/sh", "-c", script)

    def remove_containers(self) -> None:
        ids = self.docker("ps", "--all", "--quiet").split()
        if ids:
            self.docker("rm", "--force", *ids)

    def make_image(self) -> None:
        """busybox and nothing else: nothing can be pulled."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(os.path.realpath(BUSYBOX), "bin/busybox")
            for name in ("sh", "sleep", "cat", "dd", "true"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        command = ["docker", "--host", self.socket, "import", "-", IMAGE]
        subprocess.run(command, input=archive.getvalue(), check=True, capture_output=True)

    def log(self) -> str:
        return (self.root / "dockerd.log").read_text(errors="replace")

    def _docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "--host", self.socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def _command(self) -> list[str]:
        # Neither the configuration of the host's engine nor its namespace in a shared containerd.
        return [
            "dockerd",
            f"--config-file={self.root}/daemon.json",
            f"--host={self.socket}",
            f"--data-root={self.root}/data",
            f"--exec-root={self.root}/exec",
            f"--pidfile={self.root}/pid",
            f"--cgroup-parent={self.cgroup_parent}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--containerd-namespace=escra-test",
            "--containerd-plugins-namespace=escra-test-plugins",
            f"--storage-driver={self._storage}",
            "--bridge=none",
            "--iptables=false",
            "--shutdown-timeout=2",
        ]


@contextlib.contextmanager
def running_engine(storage: str = "vfs") -> Iterator[DockerEngine]:
    """Raises EngineTrouble when this machine cannot run one."""
    root = Path(tempfile.mkdtemp(prefix="escra-docker-"))
    engine = DockerEngine(root, f"/escra-test-docker-{os.getpid()}", storage)
    try:
        engine.start()
        engine.make_image()
        # An engine may start and still not be able to run anything, by the file system under it.
        engine.docker("run", "--rm", IMAGE, "/bin/true")
        yield engine
        engine.remove_containers()
    finally:
        engine.stop()
        _unmount_below(root)
        shutil.rmtree(root)
        for point in _mount_points("cgroup", "cgroup2"):
            _remove_cgroups(Path(point + engine.cgroup_parent))


def whats_missing() -> str | None:
    """Why this machine cannot run an engine; None when it can."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("dockerd", "docker", BUSYBOX):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: docker.io, busybox-static)"
    return None


def _unmount_below(root: Path) -> None:
    """An engine that had to be killed leaves mounts behind; the innermost go first."""
    for point in sorted((point for point in _mount_points() if point.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)


def _mount_points(*types: str) -> list[str]:
    """Of these file system types, or of all."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for _, point, kind, *_ in lines if not types or kind in types]


def _remove_cgroups(top: Path) -> None:
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)
