"""A controller and an agent as processes of their own, with all their state in one folder."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from escra_controller.client import QueryError, query

START_S = 15.0


class Pair:
    """``controller`` and ``agent`` are the processes, None while stopped; ``folder`` has files and logs."""

    def __init__(
        self, folder: Path, controller_toml: str, agent_toml: str, nice: int = 0, *, metrics: bool = False
    ) -> None:
        self.folder = folder
        self.control = folder / "controller.sock"
        self._nice = nice
        self.port = free_port()
        # The usual address may be taken, by a controller of this machine or of another test.
        self.metrics = f"127.0.0.1:{free_port()}" if metrics else ""
        self.write_config("controller", controller_toml)
        self.write_config("agent", agent_toml)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def write_config(self, name: str, text: str) -> None:
        """``text`` without what belongs to this pair: addresses, sockets and folders are put before it."""
        own = {
            "controller": f'[listen]\nagents = "127.0.0.1:{self.port}"\ncontrol = "{self.control}"\n'
            f'metrics = "{self.metrics}"\n',
            "agent": f'controller = "127.0.0.1:{self.port}"\nstate_dir = "{self.folder}/state"\n',
        }[name]
        # In the controller's file top-level keys must come before the first table.
        text = text + own if name == "controller" else own + text
        (self.folder / f"{name}.toml").write_text(text)

    def start(self, *names: str) -> None:
        (self.folder / "state").mkdir(exist_ok=True)
        for name in names or ("controller", "agent"):
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", f"escra_{name}.daemon", "run", "--config", f"{name}.toml"],
                    cwd=self.folder,
                    env=os.environ | {"STATE_DIRECTORY": str(self.folder / f"{name}-state")},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=lambda: os.nice(self._nice) and None,
                )

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """End one daemon and wait for it; its exit status."""
        process = self.processes.pop(name)
        process.send_signal(how)
        try:
            return process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def ask(self, op: str, **arguments: Any) -> Any:
        return query(self.control, {"op": op, **arguments}, timeout=5.0)

    def rows(self) -> dict[str, dict[str, Any]]:
        """`escra ps`, by container name."""
        return {row["name"]: row for row in self.ask("ps")}

    def wait_until(self, met: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
        """Raises TimeoutError with the ends of both logs."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(QueryError):  # not listening yet
                if met():
                    return
            time.sleep(0.02)
        raise TimeoutError(f"not within {timeout_s:g} s: {what}\n{self.logs()}")

    def wait_managed(self, *names: str) -> None:
        self.wait_until(
            lambda: all(self.rows().get(name, {}).get("state") == "managed" for name in names),
            f"{', '.join(names)} managed",
        )

    def logs(self) -> str:
        return "\n".join(
            f"--- {name}\n" + "\n".join((self.folder / f"{name}.log").read_text().splitlines()[-20:])
            for name in ("controller", "agent")
            if (self.folder / f"{name}.log").exists()
        )


@contextlib.contextmanager
def running_pair(
    controller_toml: str, agent_toml: str, *, start: bool = True, nice: int = 0, metrics: bool = False
) -> Iterator[Pair]:
    """Both daemons until the end of the block; their folder goes with them."""
    with tempfile.TemporaryDirectory(prefix="escra-pair-") as folder:
        pair = Pair(Path(folder), controller_toml, agent_toml, nice, metrics=metrics)
        try:
            if start:
                pair.start()
            yield pair
        finally:
            for name in list(pair.processes):
                pair.processes[name].send_signal(signal.SIGCONT)
                pair.stop(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
