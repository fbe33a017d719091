"""The demo's processes: the services' workers and the two daemons.  Whatever is started is ended."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from escra_common.errors import EscraError
from escra_controller.client import QueryError, query
from escra_controller.demo.groups import Group
from escra_controller.demo.scene import APP, Scene, Work
from escra_controller.demo.stopping import Stop
from escra_controller.demo.worker import REQUEST_CPU_S, Job, Report

PROCESSES_PER_SERVICE = 2
# From the word to start until all workers have heard it.
LEAD_S = 0.2
READY_WITHIN_S = 15.0
_LOG_LINES = 15


class DemoFailed(EscraError):
    """The demo cannot go on."""


@contextlib.contextmanager
def child(*arguments: str, log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """``python ARGUMENTS``, ended with the block; its output goes to ``log`` or to a pipe.

    A session of its own: Ctrl-C is for the demo, which then ends its children in order.
    """
    with ExitStack() as files:
        output = subprocess.PIPE if log is None else files.enter_context(log.open("w"))
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=None if log is None else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()


class Workers:
    """The load of one phase; ``start`` is its beginning on the clock of time.monotonic."""

    def __init__(self, scene: Scene, seconds: float, groups: Sequence[Group], stack: ExitStack) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        for index in range(len(groups)):
            for seed in range(PROCESSES_PER_SERVICE):
                job = msgspec.json.encode(Job(scene, index, PROCESSES_PER_SERVICE, seconds, seed)).decode()
                self._processes.append(stack.enter_context(child("-m", "escra_controller.demo.worker", job)))
        # They load Python outside of their cgroups: that is not part of the load.
        for number, process in enumerate(self._processes):
            _pipe(process.stdout).readline()
            self.check()
            groups[number // PROCESSES_PER_SERVICE].add(process.pid)
        self.start = time.monotonic() + LEAD_S
        for process in self._processes:
            print(self.start, file=_pipe(process.stdin), flush=True)

    def check(self) -> None:
        """Raises DemoFailed when one of them has broken down."""
        for process in self._processes:
            if process.poll():
                raise DemoFailed(f"a worker ended with status {process.returncode}")

    def work(self) -> Work:
        """What they did, when they are done."""
        outputs = [process.communicate(timeout=10.0)[0] for process in self._processes]
        self.check()
        reports = [msgspec.json.decode(output, type=Report) for output in outputs]
        return Work(
            offered_s=sum(report.offered for report in reports) * REQUEST_CPU_S,
            done_s=sum(report.done for report in reports) * REQUEST_CPU_S,
            waits_ms=[wait for report in reports for wait in report.waits_ms],
        )


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # child() was given no log, so all of its streams are pipes
    return stream


@dataclass(frozen=True, slots=True)
class Daemons:
    """The running pair; ``control`` is the controller's socket."""

    control: Path
    processes: dict[str, subprocess.Popen[str]]
    folder: Path

    def check(self) -> None:
        """Raises DemoFailed when one of them has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise DemoFailed(f"escra-{name} ended with status {process.returncode}:\n{self._log(name)}")

    def wait_until_managed(self, containers: int, stop: Stop) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while self._managed() < containers:
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"only {self._managed()} of {containers} cgroups were managed "
                    f"within {READY_WITHIN_S:.0f} s\ncontroller:\n{self._log('controller')}\n"
                    f"agent:\n{self._log('agent')}"
                )
            self.check()
            stop.check()
            time.sleep(0.05)

    def _managed(self) -> int:
        try:
            return sum(row["state"] == "managed" for row in query(self.control, {"op": "ps", "app": APP}))
        except QueryError:  # not yet listening, or no such application yet
            return 0

    def _log(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])


@contextlib.contextmanager
def daemons(scene: Scene, groups: Sequence[Group], folder: Path) -> Iterator[Daemons]:
    """Controller and agent, with all of their state in ``folder``."""
    control = folder / "controller.sock"
    address = f"127.0.0.1:{_free_port()}"
    (folder / "controller.toml").write_text(_controller_toml(scene, address, control, folder))
    state = folder / "agent"
    state.mkdir()
    (folder / "agent.toml").write_text(_agent_toml(scene, groups, address, state))
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                child(
                    *("-m", f"escra_{name}.daemon", "run", "--config", str(folder / f"{name}.toml")),
                    log=folder / f"{name}.log",
                )
            )
            for name in ("controller", "agent")
        }
        yield Daemons(control, processes, folder)


def _controller_toml(scene: Scene, address: str, control: Path, folder: Path) -> str:
    # No host can hold limits from before a controller that nobody ever talked to: no time of grace.
    return f"""\
grace_s = 0
state_dir = "{folder}/controller"

[listen]
agents = "{address}"
control = "{control}"
metrics = ""

[apps.{APP}]
cpu = {scene.omega_milli / 1000}
memory = "1GiB"
"""


def _agent_toml(scene: Scene, groups: Sequence[Group], address: str, state: Path) -> str:
    managed = "\n".join(
        f'[[cgroup]]\npath = "{group.path}"\napp = "{APP}"\nname = "{name}"\n'
        for name, group in zip(scene.names, groups, strict=True)
    )
    return f"""\
controller = "{address}"
state_dir = "{state}"

[docker]
enabled = false

{managed}"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
