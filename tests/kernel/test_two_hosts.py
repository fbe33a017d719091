"""The example with two hosts and TLS: two hosts and a controller in network namespaces."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.network import Network, NoNetwork, running_network
from escra_agent.hierarchy import Hierarchy
from escra_controller.client import QueryError, query
from tests.kernel_cgroups import KernelCgroup, throwaway
from tests.needs import unavailable

pytestmark = pytest.mark.kernel

EXAMPLE = Path(__file__).parents[2] / "systemd" / "examples" / "two-hosts"
HOSTS = ("host-1", "host-2")


@pytest.fixture
def network(hierarchy: Hierarchy) -> Iterator[Network]:
    try:
        with running_network(["ctl", *HOSTS]) as made:
            yield made
    except NoNetwork as error:
        unavailable("kernel", str(error))


@pytest.fixture
def groups(hierarchy: Hierarchy) -> Iterator[dict[str, KernelCgroup]]:
    with ExitStack() as stack:
        yield {host: stack.enter_context(throwaway(hierarchy)) for host in HOSTS}


class Place:
    """What stands for /etc/escra of all three machines: the example's files, with this test's addresses."""

    def __init__(self, folder: Path, network: Network, stack: ExitStack) -> None:
        self.folder = folder
        self.control = folder / "controller.sock"
        self._network = network
        self._stack = stack

    def here(self, text: str, **more: str) -> str:
        replaced = {"192.0.2.10": self._network.address("ctl"), "/etc/escra": str(self.folder), **more}
        for there, place in replaced.items():
            text = text.replace(there, place)
        return text

    def issue(self) -> None:
        """Runs certificates.sh, with the folder of the CA named."""
        program = f"{sys.executable} -m escra_controller.daemon pki"
        script = (EXAMPLE / "certificates.sh").read_text().replace("escra-controller pki", program)
        for verb in ("init", "issue"):
            script = script.replace(f"pki {verb}", f"pki {verb} --dir {self.folder}/pki")
        subprocess.run(["sh", "-c", self.here(script)], check=True, capture_output=True)
        (self.folder / "ca.pem").write_bytes((self.folder / "pki" / "ca.pem").read_bytes())

    def certificate(self, role: str, name: str, target: str) -> None:
        for kind in ("pem", "key"):
            source = self.folder / "pki" / f"{role}-{name}.{kind}"
            (self.folder / f"{target}.{kind}").write_bytes(source.read_bytes())

    def start(self, program: str, host: str, toml: str) -> None:
        config, state = self.folder / f"{host}.toml", self.folder / f"state-{host}"
        config.write_text(toml)
        state.mkdir()
        environment = {"STATE_DIRECTORY": str(state), "CREDENTIALS_DIRECTORY": str(self.folder)}
        log = self._stack.enter_context((self.folder / f"{host}.log").open("wb"))
        daemon = [sys.executable, "-m", f"escra_{program}.daemon", "run", "--config", str(config)]
        process = subprocess.Popen(
            [*self._network.enter(host), *daemon],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def ask(self, op: str) -> Any:
        try:
            return query(self.control, {"op": op}, 5.0)
        except QueryError:  # not yet
            return []

    def wait_until(self, met: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 20
        while not met():
            logs = "\n".join(log.read_text()[-2000:] for log in self.folder.glob("*.log"))
            assert time.monotonic() < end, f"not within 20 s: {what}\n{logs}"
            time.sleep(0.05)


def test_one_limit_over_two_hosts_with_tls(
    network: Network, groups: dict[str, KernelCgroup], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        place = Place(tmp_path, network, stack)
        place.issue()
        place.certificate("controller", "ctl", "controller")
        control = f'[listen]\ncontrol = "{place.control}"'
        text = (EXAMPLE / "controller.toml").read_text()
        place.start("controller", "ctl", place.here(text, **{"[listen]": control}))
        for host, group in groups.items():
            place.certificate("agent", host, f"agent-{host}")
            text = (EXAMPLE / f"agent-{host}.toml").read_text()
            own = {"agent.pem": f"agent-{host}.pem", "agent.key": f"agent-{host}.key"}
            toml = place.here(text, **own, **{"system.slice/worker.service": group.path})
            place.start("agent", host, f"{toml}\n[docker]\nenabled = false\n")
        place.wait_until(
            lambda: [row["state"] for row in place.ask("ps")] == ["managed", "managed"], "both are managed"
        )
        assert [row["host"] for row in place.ask("agents")] == list(HOSTS)
        assert place.ask("status")["problems"] == []
        groups["host-1"].busy()

        def limits() -> list[float]:
            return [row["cpu"]["limit_cores"] for row in place.ask("ps")]

        place.wait_until(lambda: limits()[0] > 0.7 > 0.3 > limits()[1], "host-1 has what host-2 does not use")
        assert sum(limits()) <= 1.0 + 1e-9
