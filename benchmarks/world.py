"""Hosts in network namespaces under load, with all their daemons: what faults happen to."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGTERM, Signals
from typing import Any, Literal, NamedTuple

from benchmarks.audit import Audit
from benchmarks.kernel_memory import KernelMemory
from benchmarks.kernelfiles import Limits
from benchmarks.network import Network, running_network
from benchmarks.stillness import Stillness
from benchmarks.watcher import AppWatch, Seen, Watcher
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from escra_controller.client import QueryError, query
from tests.kernel_cgroups import BUSYBOX, KernelCgroup, throwaway
from tests.pki_files import Authority, section

MIB = 1 << 20
PORT = 7737
PERIOD_USEC = 100_000
START_S = 20.0
# With the daemons of several worlds at once, and their certificates.
FIRST_START_S = 60.0
LOOK_S, LOOKS = 0.05, 5
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
    alone_s: float = 4.0  # so long the kernel is watched with the limits that they came with


@dataclass(slots=True)
class Daemon:
    kind: Literal["agent", "controller"]
    host: str
    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """In a session of its own: Ctrl-C is for the benchmark, which ends it in its turn."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
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
    def state(self) -> Path:
        return self.folder / "state" / self.host

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


class Recovery(NamedTuple):
    """In seconds from the end of a fault: until all was as before, and until limits had moved on all hosts
    that it concerned.  ``last`` is what was wrong last.
    """

    well_s: float
    moved_s: float
    last: str


class Interrupted(RuntimeError):
    """Somebody ended the run; what it made goes."""


@dataclass(slots=True)
class World:
    plan: Plan
    folder: Path
    network: Network
    groups: list[Group]
    apps: dict[str, AppWatch]
    daemons: dict[str, Daemon] = field(default_factory=dict)
    leader: str = "c1"
    alone: list[Seen] = field(default_factory=list)  # before Escra came
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> Path:
        """Every daemon's state is below."""
        return self.folder / "state"

    @property
    def other_controller(self) -> str:
        return next(name for name in self.plan.controllers if name != self.leader)

    def ask(self, op: str, **arguments: Any) -> Any:
        return query(self.folder / f"{self.leader}.sock", {"op": op, **arguments}, timeout=5.0)

    def moved_since(self, at: float, host: str) -> float | None:
        """So long after ``at`` the kernel saw a CPU limit of this host change; None if it has not."""
        return min(
            (
                moved - at
                for group in self.groups
                if group.host == host
                for moved in list(self.apps[group.app].moves_at[group.name])
                if moved > at
            ),
            default=None,
        )

    def sleep(self, seconds: float) -> None:
        """Raises Interrupted when all is to end."""
        if self.over.wait(seconds):
            raise Interrupted

    def wait_as_before(self, since: float, hosts: Sequence[str], timeout_s: float = START_S) -> Recovery:
        """Until all is connected, managed and explained (see Audit), and then limits have moved on ``hosts``.

        It must stay so, in five looks.  Raises NotRecovered.
        """
        end, audit, wrong = time.monotonic() + timeout_s, Audit(), "nobody answers"
        lost, well_at, looks = [g.name for g in self.groups], 0.0, 0
        while time.monotonic() < end:
            looked_at = time.monotonic()
            with suppress(QueryError):  # not listening yet
                now_wrong, lost = self._whats_wrong(audit)
                looks = 0 if now_wrong else looks + 1
                well_at = looked_at if looks == 1 else well_at
                wrong = now_wrong or wrong
                moved_s = [self.moved_since(since, host) for host in hosts]
                if looks >= LOOKS and None not in moved_s:
                    return Recovery(well_at - since, max(filter(None, moved_s)), wrong)
            self.sleep(LOOK_S)
        still = [host for host in hosts if self.moved_since(since, host) is None]
        wrong = wrong if looks < LOOKS else f"no limit moves on {', '.join(still)}"
        raise NotRecovered(f"not within {timeout_s:g} s as before: {wrong}\n{self.logs()}", lost)

    def _whats_wrong(self, audit: Audit) -> tuple[str, list[str]]:
        """What people are told against what the kernel holds; and whom it is about."""
        before = self._limits()
        rows = {row["name"]: row for row in self.ask("ps")}
        after = self._limits(read_after=time.monotonic())
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
        wrong = {}
        for name, limits in after.items():
            # It may have moved, and its order been answered, just before the controller spoke or just after.
            if why := audit.wrong(rows[name], limits) and audit.wrong(rows[name], before[name]):
                wrong[name] = why
        return "; ".join(wrong.values()), list(wrong)

    def _limits(self, read_after: float = 0.0) -> dict[str, Limits]:
        """By container, as the watcher read them last; of a time after ``read_after``."""
        while any(app.read_at < read_after for app in self.apps.values()):
            self.sleep(0.005)
        return {name: limits for app in self.apps.values() for name, limits in app.limits.items()}

    def logs(self) -> str:
        return "\n".join(
            f"--- {daemon.host}\n" + "\n".join(daemon.log.read_text().splitlines()[-12:])
            for daemon in self.daemons.values()
            if daemon.log.exists()
        )


@contextmanager
def running_world(
    hierarchy: Hierarchy, plan: Plan, over: threading.Event, stillness: Stillness
) -> Iterator[World]:
    """Raises NoNetwork where there are no namespaces.  Nothing is left of it after the block.

    Whoever sets ``over`` ends what waits in it, with Interrupted.
    """
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
                stillness,
            )
            for app, share in SHARES.items()
        }
        for app in apps.values():
            stack.callback(app.close)
        world = World(plan, folder, network, groups, apps, over=over)
        world.state.mkdir()
        if plan.disk_mib:
            stack.enter_context(_small_disk(world.state, plan.disk_mib))
        _configure(world)
        stack.enter_context(Watcher(list(apps.values())))
        _load(groups)
        for app in apps.values():
            app.start_anew()
        world.sleep(plan.alone_s)
        world.alone = [app.take() for app in apps.values()]
        for daemon in world.daemons.values():
            stack.callback(daemon.stop)
            daemon.start()
        world.wait_as_before(time.monotonic(), plan.hosts, FIRST_START_S)
        # Nobody answers for limits that were in force before all were managed.
        for app in apps.values():
            app.start_anew()
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
    world.daemons[host] = Daemon(kind, host, [*world.network.enter(host), *run], world.folder)
    world.daemons[host].state.mkdir()
