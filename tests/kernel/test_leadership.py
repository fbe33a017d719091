"""Several controllers, hosts that stay away, and agents left alone: real processes on real cgroups."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pair import Pair, free_port, running_pair
from escra_agent.hierarchy import Hierarchy
from escra_controller.client import QueryError, query
from tests.kernel_cgroups import KernelCgroup, limit, throwaway

pytestmark = pytest.mark.kernel

OMEGA = 1500


def controller_toml(**apps: str) -> str:
    """Each application with 1.5 cores, and with what else is said of it."""
    tables = "".join(
        f'[apps.{name}]\ncpu = {OMEGA / 1000}\nmemory = "1GiB"\n{more}' for name, more in apps.items()
    )
    return f"grace_s = 0.2\n{tables}"


def entry(group: KernelCgroup, name: str, app: str = "shop") -> str:
    return f'[[cgroup]]\npath = "{group.path}"\napp = "{app}"\nname = "{name}"\n'


def milli(group: KernelCgroup) -> int | None:
    with contextlib.closing(group.open()) as cgroup:
        in_force = cgroup.read_limit()
    return None if in_force.quota_usec is None else in_force.quota_usec * 1000 // in_force.period_usec


@pytest.fixture
def groups(hierarchy: Hierarchy) -> Iterator[list[KernelCgroup]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(throwaway(hierarchy)) for _ in range(3)]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with running_pair(controller_toml(shop=""), "", start=False) as made:
        yield made


class Beside:
    """Another daemon beside a pair, with a configuration and a state directory of its own."""

    def __init__(self, pair: Pair, name: str, program: str, toml: str) -> None:
        self.path = pair.folder / f"{name}.toml"
        self.path.write_text(toml)
        self.log = pair.folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"escra_{program}.daemon", "run", "--config", str(self.path)],
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def second_controller(pair: Pair, state: Path, more: str = "") -> tuple[str, int, Path]:
    """Its configuration, its port, and its control socket."""
    port, control = free_port(), pair.folder / "second.sock"
    toml = f'state_dir = "{state}"\n{more}{controller_toml(shop="")}'
    return (
        f'{toml}[listen]\nagents = "127.0.0.1:{port}"\ncontrol = "{control}"\nmetrics = ""\n',
        port,
        control,
    )


def agent_toml(pair: Pair, *ports: int) -> str:
    """In front of what the pair would say itself."""
    listed = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    return f'controller = [{listed}]\nstate_dir = "{pair.folder}/agent-state"\n[docker]\nenabled = false\n'


def escra_controller(*arguments: str) -> str:
    """What it says."""
    command = [sys.executable, "-m", "escra_controller.daemon", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def role(control: Path) -> str:
    try:
        return str(query(control, {"op": "status"})["role"])
    except QueryError:
        return ""


def test_a_second_controller_with_the_same_configuration_is_refused(pair: Pair) -> None:
    pair.start("controller")
    pair.wait_until(lambda: role(pair.control) == "leader", "it leads")
    # The pair names its state directory in the environment; here it must be said.
    text = f'state_dir = "{pair.folder}/controller-state"\n' + (pair.folder / "controller.toml").read_text()
    with Beside(pair, "again", "controller", text) as again:
        assert again.process.wait(10) == 78
        said = again.log.read_text().splitlines()[-1]
    assert f"a second controller: process {pair.processes['controller'].pid} leads" in said


def test_one_that_waits_for_the_lock_takes_over_with_all_that_was_known(
    pair: Pair, groups: list[KernelCgroup]
) -> None:
    state = pair.folder / "controller-state"
    toml, port, control = second_controller(pair, state)
    (pair.folder / "agent.toml").write_text(agent_toml(pair, pair.port, port) + entry(groups[0], "a"))
    pair.start()
    pair.wait_managed("a")
    assert pair.ask("set", app="shop", cpu_milli=700)["cpu"]["limit_cores"] == 0.7
    groups[0].busy(2)
    pair.wait_until(lambda: (milli(groups[0]) or 0) > 600, "it grew")
    with Beside(pair, "second", "controller", toml):
        pair.wait_until(lambda: role(control) == "waiting", "the second waits")
        with pytest.raises(QueryError, match="leads with the same state directory; stop it"):
            query(control, {"op": "promote"})
        killed = time.monotonic()
        pair.stop("controller", signal.SIGKILL)
        pair.wait_until(lambda: role(control) == "leader", "it took over")
        pair.wait_until(
            lambda: [r["state"] for r in query(control, {"op": "ps"})] == ["managed"],
            "its container is known",
        )
        took_s = time.monotonic() - killed
        (row,) = query(control, {"op": "apps"})
        assert row["cpu"]["limit_cores"] == 0.7, "what a person set is kept"
        assert row["cpu"]["reserved_cores"] == 0
        assert took_s < 8, "agents try again within five seconds"
        assert (milli(groups[0]) or 0) > 600, "limits stay as they are meanwhile"


def test_a_standby_of_another_machine_leads_when_promoted_and_the_old_one_is_not_obeyed(
    pair: Pair, groups: list[KernelCgroup]
) -> None:
    toml, port, control = second_controller(pair, pair.folder / "standby-state", "standby = true\n")
    (pair.folder / "agent.toml").write_text(agent_toml(pair, pair.port, port) + entry(groups[0], "a"))
    with Beside(pair, "standby", "controller", toml) as standby:
        pair.wait_until(lambda: role(control) == "standby", "it stands by")
        pair.start()
        pair.wait_managed("a")
        with pytest.raises(QueryError, match="is a standby; ask the one that leads"):
            query(control, {"op": "apps"})
        pair.stop("controller", signal.SIGKILL)
        promoted = escra_controller("promote", "--config", str(standby.path), "--host", "elsewhere")
        (host,) = {r["host"] for r in query(control, {"op": "agents"})} - {"elsewhere"}
        assert f"epoch 1.  It waits for these hosts: elsewhere, {host}" in promoted
        # Two controllers on one machine have the same name here, so the epoch alone decides.
        pair.wait_until(
            lambda: [r["state"] for r in query(control, {"op": "ps"})] == ["managed"], "the agent came over"
        )
        groups[0].busy(2)
        held = milli(groups[0]) or 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert (milli(groups[0]) or 0) <= held, "nothing grows until all have come or are forgotten"
            time.sleep(0.01)
        assert any("elsewhere has not come back" in p for p in query(control, {"op": "status"})["problems"])
        query(control, {"op": "forget", "host": "elsewhere"})
        pair.wait_until(lambda: (milli(groups[0]) or 0) > 1000, "now it grows", 6)
        pair.start("controller")
        pair.wait_until(lambda: role(pair.control) == "leader", "the old one is back")
        time.sleep(1)
        assert pair.ask("agents") == [] or pair.ask("agents")[0]["state"] == "absent", "and nobody obeys it"
        assert [r["state"] for r in query(control, {"op": "agents"})] == ["connected"]


def test_a_host_that_stays_away_over_a_restart_is_counted_until_it_is_forgotten(
    pair: Pair, groups: list[KernelCgroup]
) -> None:
    pair.write_config("agent", 'host = "h1"\n[docker]\nenabled = false\n' + entry(groups[0], "a"))
    other = (
        f'controller = "127.0.0.1:{pair.port}"\nhost = "h2"\nstate_dir = "{pair.folder}/h2"\n'
        f"[docker]\nenabled = false\n{entry(groups[1], 'b')}"
    )
    with Beside(pair, "h2", "agent", other):
        pair.start()
        pair.wait_managed("a", "b")
        groups[1].busy(2)
        pair.wait_until(lambda: (milli(groups[1]) or 0) > 1000, "b has most of the pool", 8)
    held = milli(groups[1]) or 0
    pair.stop("controller", signal.SIGKILL)
    groups[0].busy(2)
    pair.start("controller")
    pair.wait_until(lambda: [r["state"] for r in pair.ask("ps")] == ["managed"], "a is back")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert (milli(groups[0]) or 0) + held <= OMEGA, "what b may hold is nobody else's"
        time.sleep(0.005)
    (row,) = pair.ask("apps")
    assert held / 1000 <= row["cpu"]["reserved_cores"] <= OMEGA / 1000
    states = {r["host"]: r["state"] for r in pair.ask("agents")}
    assert states == {"h1": "connected", "h2": "absent"}
    with pytest.raises(QueryError, match="h1 is connected"):
        pair.ask("forget", host="h1")
    with pytest.raises(QueryError, match="away are: h2"):
        pair.ask("forget", host="h3")
    groups[1].stop()
    pair.ask("forget", host="h2")
    pair.wait_until(lambda: (milli(groups[0]) or 0) > 1200, "a may have it all now", 6)
    assert pair.ask("status")["problems"] == []


def test_agents_left_alone_do_what_their_application_says_when_the_lease_is_over(
    pair: Pair, groups: list[KernelCgroup]
) -> None:
    lease = 'lease_s = 10\ncpu_min = 0.1\nfallback = "{}"\n'
    toml = controller_toml(stays="", falls=lease.format("floor"), ends=lease.format("restore"))
    pair.write_config("controller", toml)
    names = dict(zip(("stays", "falls", "ends"), groups, strict=True))
    with contextlib.closing(names["ends"].open()) as cgroup:
        cgroup.write_limit(limit(0.4))
    entries = "".join(entry(group, name, app=name) for name, group in names.items())
    pair.write_config("agent", "[docker]\nenabled = false\n" + entries)
    for group in groups:
        group.busy(1)
    pair.start()
    pair.wait_managed(*names)
    pair.wait_until(lambda: all((milli(g) or 0) > 600 for g in groups), "all have grown", 8)
    time.sleep(1.2)  # a heartbeat, so that the agent has the terms
    left = time.monotonic()
    pair.stop("controller", signal.SIGKILL)
    pair.stop("agent", signal.SIGKILL)
    killed = {name: milli(group) or 0 for name, group in names.items()}
    pair.start("agent")
    time.sleep(1)
    # Who was raised just before may have had what was left of a period: that is made whole.
    before = {name: milli(group) or 0 for name, group in names.items()}
    assert all(killed[name] <= before[name] <= OMEGA for name in names), (killed, before)
    time.sleep(left + 7 - time.monotonic())
    assert {name: milli(group) for name, group in names.items()} == before, "not before its time"
    pair.wait_until(lambda: milli(names["falls"]) == 100, "to the floor", 8)
    pair.wait_until(lambda: milli(names["ends"]) == 400, "its own limit again", 2)
    assert milli(names["stays"]) == before["stays"]
    assert "the lease is over" in pair.logs()
    pair.start("controller")
    pair.wait_managed(*names)
    pair.wait_until(lambda: all((milli(g) or 0) > 600 for g in groups), "all is as it was", 8)
