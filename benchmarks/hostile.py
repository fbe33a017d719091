"""What those who reach the agents' port can do to the others: decision latency and memory meanwhile.

A controller under TLS on a host of its own, an honest agent with 100 containers on another (speaker.py), and
on a third one who attacks (attacker.py), from sixteen addresses.  ``decision_ms``: from the honest agent's
sample leaving to its order arriving; ``raises`` and ``cuts``: how many orders it got of each kind;
``join_ms``: how long it took to join, meanwhile; ``rss_mib``: the most memory that the controller was seen to
hold; ``connected``: how often the attacker got through to it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.attacker import ATTACKS, EVIL, HONEST
from benchmarks.network import Network, running_network
from benchmarks.numbers import summary_ms
from benchmarks.world import POLICY, PORT, START_S, Daemon
from escra_common.tls import TlsConfig
from escra_controller.client import QueryError, query
from tests.pki_files import Authority, section

HOSTILE = tuple(ATTACKS)
CONTAINERS = 100
ADDRESSES = 16
# The attacker begins before and ends after the honest one.
AROUND_S = 1.0
CONTROLLER = "c1"
ROOT = Path(__file__).parents[1]


def measure_hostile(kinds: Sequence[str], seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each kind for so many seconds, one after the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="escra-hostile-")))
        network = stack.enter_context(running_network([CONTROLLER, HONEST, EVIL]))
        scene = Scene(folder, network, network.add_addresses(EVIL, ADDRESSES))
        stack.callback(scene.controller.stop)
        scene.controller.start()
        scene.wait_listening()
        return [scene.attack(kind, seconds, say) for kind in kinds]


class Scene:
    """``controller`` is to be started and stopped by whoever made this."""

    def __init__(self, folder: Path, network: Network, sources: Sequence[str]) -> None:
        authority = Authority(folder / "ca")
        self._folder = folder
        self._network = network
        self._sources = sources
        self._address = network.address(CONTROLLER)
        self._identities = {host: authority.issue("agent", host) for host in (HONEST, EVIL)}
        tls = section(authority.issue("controller", CONTROLLER, self._address))
        (folder / "controller.toml").write_text(
            f'state_dir = "{folder}"\ngrace_s = 0\n'
            f'[listen]\nagents = "{self._address}:{PORT}"\ncontrol = "{self._control}"\nmetrics = ""\n{tls}'
            f'{POLICY}[apps.bench]\ncpu = 900\ncpu_max = 4\nmemory = "1GiB"\n'
        )
        run = [sys.executable, "-m", "escra_controller.daemon", "run", "--config", "controller.toml"]
        self.controller = Daemon("controller", CONTROLLER, [*network.enter(CONTROLLER), *run], folder)

    def wait_listening(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                query(self._control, {"op": "status"})
                return
            except QueryError:
                if time.monotonic() > end:
                    raise TimeoutError(f"no controller:\n{self.controller.log.read_text()}") from None
                time.sleep(0.05)

    def attack(self, kind: str, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
        assert self.controller.process is not None
        victim = psutil.Process(self.controller.process.pid)
        cpu_before, logged_before = sum(victim.cpu_times()[:2]), self.controller.log.stat().st_size
        attacker = self._start(EVIL, "attacker", kind, seconds + 2 * AROUND_S, self._sources)
        started = [attacker]
        try:
            time.sleep(AROUND_S)
            honest = self._start(HONEST, "speaker", HONEST, seconds, [], CONTAINERS)
            started.append(honest)
            rss = 0
            while honest.poll() is None:
                rss = max(rss, victim.memory_info().rss)
                time.sleep(0.05)
            if honest.returncode:
                raise RuntimeError(
                    f"{kind}: the honest agent failed\n{self.controller.log.read_text()[-3000:]}"
                )
            said = json.loads(honest.communicate()[0])
            connected = int(attacker.communicate(timeout=START_S)[0])
        finally:
            for process in started:
                process.kill()
                process.wait()
        row = {
            "kind": kind,
            "decision_ms": summary_ms(said["delays_s"]),
            "raises": said["raises"],
            "cuts": said["cuts"],
            "join_ms": round(said["join_s"] * 1000, 1),
            "rss_mib": round(rss / 2**20, 1),
            "connected": connected,
            "controller_cpu_s": round(sum(victim.cpu_times()[:2]) - cpu_before, 2),
            "log_kib": round((self.controller.log.stat().st_size - logged_before) / 1024, 1),
        }
        say(f"hostile: {json.dumps(row)}")
        return row

    @property
    def _control(self) -> Path:
        return self._folder / "controller.sock"

    def _start(
        self, host: str, module: str, what: str, seconds: float, last: Sequence[str], *more: object
    ) -> "subprocess.Popen[str]":
        tls: TlsConfig = self._identities[host]
        words = [what, self._address, PORT, *more, seconds, tls.ca, tls.cert, tls.key, *last]
        command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)]
        return subprocess.Popen(
            [*self._network.enter(host), *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
