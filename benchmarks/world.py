"""Hosts in network namespaces under load, with all their daemons: what faults happen to."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGTERM, Signals
from typing import Any, Literal

from benchmarks.kernel_memory import KernelMemory
from benchmarks.network import Network, running_network
from benchmarks.watcher import AppWatch, Watcher
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from escra_controller.client import QueryError, query
from tests.kernel_cgroups import BUSYBOX, KernelCgroup, throwaway
from tests.pki_files import Authority, section

MIB = 1 << 20
PORT = 7737
PERIOD_USEC = 100_000
START_S = 20.0
# What limits are before Escra comes, and what its applications have: shares of ``Plan.cores``.
SHARES = {"shop": 0.7, "side": 0.3}
MEMORY_MIB = 64
HERE = Path(__file__).parent
LOAD, BREATHE = (str(HERE / name) for name in ("load.py", "breathe.py"))
# Limits fall back quickly, and floors are far below the fair shares, so that limits move all the time.
POLICY = "[policy]\nshrink_every_s = 0.1\nshrink_window_s = 0.3\nidle_s = 1.0\nremember_s = 0.1\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """``cores`` is Ω of all applications together.  A second controller is a standby on a host of its own."""

    hosts: Sequence[str] = ("h1", "h2")
    controllers: Sequence[str] = ("c1",)
    cores: float = 0.6
    docker: str = ""  # the socket of the engine of the first host
    disk_mib: int = 0  # all state is on a file system of this size; 0: where temporary files are


@dataclass(slots=True)
class Daemon:
    kind: Literal["agent", "controller"]
    host: str
    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.nice(-10) and None,  # as its unit sets it
            )

    def signal(self, number: Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, how: Signals = SIGTERM) -> None:
        """End it and wait for it; one that does not end is killed, and TimeoutExpired raised."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(SIGCONT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    @property
    def log(self) -> Path:
        return self.folder / f"{self.host}.log"


@dataclass(frozen=True, slots=True)
class Group:
    """A cgroup of ``app`` on ``host``, and its name in both."""

    app: str
    host: str
    name: str
    cgroup: KernelCgroup


class NotRecovered(RuntimeError):
    """After a fault something stayed wrong; ``lost`` are the containers that are not as they were."""

    def __init__(self, what: str, lost: Sequence[str]) -> None:
        super().__init__(what)
        self.lost = list(lost)


@dataclass(slots=True)
class World:
    plan: Plan
    folder: Path
    network: Network
    groups: list[Group]
    apps: dict[str, AppWatch]
    daemons: dict[str, Daemon] = field(default_factory=dict)
    leader: str = "c1"

    @property
    def state(self) -> Path:
        """Every daemon's state is below."""
        return self.folder / "state"

    def ask(self, op: str, **arguments: Any) -> Any:
        return query(self.folder / f"{self.leader}.sock", {"op": op, **arguments}, timeout=5.0)

    def moved_since(self, at: float, host: str) -> bool:
        """Whether the kernel has seen a CPU limit of this host change."""
        return any(
            self.apps[group.app].moved_at[group.name] > at for group in self.groups if group.host == host
        )

    def wait_as_before(
        self, since: float, hosts: Sequence[str], timeout_s: float = START_S
    ) -> tuple[float, str]:
        """Seconds from ``since`` until all is accounted for and limits move on ``hosts``; what was so last.

        Raises NotRecovered.
        """
        end, wrong, lost = time.monotonic() + timeout_s, "", [g.name for g in self.groups]
        while time.monotonic() < end:
            with suppress(QueryError):  # not listening yet
                now_wrong, lost = self.whats_wrong()
                still = [host for host in hosts if not self.moved_since(since, host)]
                if not now_wrong and not still:
                    return time.monotonic() - since, wrong
                wrong = now_wrong or f"no limit moves on {', '.join(still)}"
            time.sleep(0.05)
        raise NotRecovered(f"not within {timeout_s:g} s as before: {wrong}\n{self.logs()}", lost)

    def whats_wrong(self) -> tuple[str, list[str]]:
        """What people are told against what the kernel holds; and whom it is about."""
        rows = {row["name"]: row for row in self.ask("ps")}
        away = [row["host"] for row in self.ask("agents") if row["state"] != "connected"]
        strange = [
            group.name
            for group in self.groups
            if group.name not in rows
            or rows[group.name]["state"] != "managed"
            or not rows[group.name]["memory"]["managed"]
        ]
        if strange or away:
            states = {name: rows[name]["state"] if name in rows else "unknown" for name in strange}
            return f"containers {states}, agents away: {away}", strange
        for row in self.ask("apps"):
            if row["name"] in self.apps and (wrong := self._unaccounted(row)):
                return wrong, [group.name for group in self.groups if group.app == row["name"]]
        return "", []

    def _unaccounted(self, row: dict[str, Any]) -> str:
        """The ledger's sum must be the kernel's, at a moment when nothing is under way."""
        limits = self.apps[row["name"]].limits.values()
        cpu, memory = sum(each.cpu_cores for each in limits), sum(each.memory_bytes for each in limits)
        # The ledger counts in millicores, memory in whole pages.
        if abs(cpu - row["cpu"]["allocated_cores"]) > 0.001 * len(limits):
            return f"{row['name']}: the kernel holds {cpu:.3f} cores, counted are {row['cpu']}"
        if abs(memory - row["memory"]["allocated_bytes"]) > 4096 * len(limits):
            return f"{row['name']}: the kernel holds {memory} B, counted are {row['memory']}"
        return ""

    def logs(self) -> str:
        return "\n".join(
            f"--- {daemon.host}\n" + "\n".join(daemon.log.read_text().splitlines()[-12:])
            for daemon in self.daemons.values()
            if daemon.log.exists()
        )


@contextmanager
def running_world(hierarchy: Hierarchy, plan: Plan) -> Iterator[World]:
    """Raises NoNetwork where there are no namespaces.  Nothing is left of it after the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="escra-world-")))
        network = stack.enter_context(running_network([*plan.controllers, *plan.hosts]))
        groups = [
            Group(app, host, f"{host}-{name}", stack.enter_context(throwaway(hierarchy)))
            for host in plan.hosts
            for app, name in (("shop", "steady"), ("shop", "bursty"), ("side", "batch"))
        ]
        _limit(plan, groups)
        apps = {
            app: AppWatch(
                hierarchy,
                {g.name: g.cgroup.path for g in groups if g.app == app},
                round(share * plan.cores, 3),
                MEMORY_MIB * MIB * sum(g.app == app for g in groups),
            )
            for app, share in SHARES.items()
        }
        for app in apps.values():
            stack.callback(app.close)
        world = World(plan, folder, network, groups, apps)
        world.state.mkdir()
        if plan.disk_mib:
            stack.enter_context(_small_disk(world.state, plan.disk_mib))
        _configure(world)
        stack.enter_context(Watcher(list(apps.values())))
        _load(groups)
        for daemon in world.daemons.values():
            stack.callback(daemon.stop)
            daemon.start()
        world.wait_as_before(time.monotonic(), plan.hosts)
        yield world


@contextmanager
def _small_disk(folder: Path, size_mib: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "escra-faults", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _limit(plan: Plan, groups: Sequence[Group]) -> None:
    """All that they came with sums to Ω, so that it holds from the first moment on."""
    for group in groups:
        share = SHARES[group.app] * plan.cores / sum(g.app == group.app for g in groups)
        opened = group.cgroup.open()
        opened.write_limit(CpuLimit(int(share * PERIOD_USEC), PERIOD_USEC))
        opened.close()
        KernelMemory(group.cgroup.hierarchy, group.cgroup.path).set_limit(MEMORY_MIB * MIB)


def _load(groups: Sequence[Group]) -> None:
    """Each host's on one processor: bursts that delay each other are not what is measured here."""
    hosts = list(dict.fromkeys(group.host for group in groups))
    for seed, group in enumerate(groups):
        on = ("taskset", "-c", str(hosts.index(group.host) % (os.cpu_count() or 1)))
        steady = group.name.endswith("steady")
        rhythm = ("4.0", "0.0", "0.0") if steady else ("0.4", "0.7", "0.0")
        group.cgroup.start(*on, sys.executable, "-SE", LOAD, *rhythm, str(seed))
        if group.app == "shop":
            # Who is killed for want of memory begins again.
            again = 'while :; do "$@"; done 2>/dev/null'
            breathe = (sys.executable, "-SE", BREATHE, "72", str(seed))
            group.cgroup.start(*on, BUSYBOX, "sh", "-c", again, "sh", *breathe)


# ---- configuration -----------------------------------------------------------------


def _configure(world: World) -> None:
    plan, network = world.plan, world.network
    authority = Authority(world.folder / "ca")
    for number, name in enumerate(plan.controllers):
        tls = section(authority.issue("controller", name, network.address(name)))
        standby = "standby = true\n" if number else ""
        _add(world, "controller", name, standby, _controller(world, name) + tls)
    addresses = ", ".join(f'"{network.address(name)}:{PORT}"' for name in plan.controllers)
    for number, host in enumerate(plan.hosts):
        tls = section(authority.issue("agent", host))
        docker = plan.docker if number == 0 else ""
        engine = f'enabled = true\nsocket = "{docker}"\n' if docker else "enabled = false\n"
        entries = "".join(
            f'[[cgroup]]\npath = "{group.cgroup.path}"\napp = "{group.app}"\nname = "{group.name}"\n'
            for group in world.groups
            if group.host == host
        )
        top = f'controller = [{addresses}]\nhost = "{host}"\n'
        _add(world, "agent", host, top, f"{tls}[docker]\n{engine}{entries}")


def _controller(world: World, name: str) -> str:
    """The application ``docked`` is for containers of an engine: it has none of the cgroups here."""
    apps = "".join(
        f'[apps.{app}]\ncpu = {share * world.plan.cores:.3f}\ncpu_min = 0.01\nmemory_min = "32MiB"\n'
        f'memory = "{MEMORY_MIB * sum(g.app == app for g in world.groups)}MiB"\n'
        for app, share in SHARES.items()
    )
    return (
        f'[listen]\nagents = "{world.network.address(name)}:{PORT}"\n'
        f'control = "{world.folder}/{name}.sock"\nmetrics = ""\n'
        f'{POLICY}{apps}[apps.docked]\ncpu = 0.2\nmemory = "256MiB"\n'
    )


def _add(world: World, kind: Literal["agent", "controller"], host: str, top: str, tables: str) -> None:
    (world.folder / f"{host}.toml").write_text(f'state_dir = "{world.state}/{host}"\n{top}{tables}')
    run = [sys.executable, "-m", f"escra_{kind}.daemon", "run", "--config", f"{host}.toml"]
    (world.state / host).mkdir()
    world.daemons[host] = Daemon(kind, host, [*world.network.enter(host), *run], world.folder)
