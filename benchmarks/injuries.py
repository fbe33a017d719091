"""What is done to a world, one function for each kind of fault.

Each takes a world that is well and ends when the fault is over; what is to be well again is then waited for.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from benchmarks.world import Plan, World
from tests.docker_engine import DockerEngine, running_engine

# Both ends take a peer for gone after three silent seconds.
NOTICED_S = 4.0
# How long systemd waits before it starts a daemon again, at most.
RESTART_S = 1.0
DOCKED = "docked"
# Hosts are told about once a second how many there are.
HEARD_S = 2.5


@dataclass(frozen=True, slots=True)
class Durations:
    """In seconds: how long somebody is stopped, parted or without a disk."""

    stop_s: float
    part_s: float
    full_s: float = 4.0


@dataclass(frozen=True, slots=True)
class Healed:
    """The fault was over at ``at`` (monotonic); limits must move on ``hosts`` again.

    ``stood_still`` are hosts the fault did not concern, and on which no limit moved meanwhile all the same.
    """

    at: float
    hosts: Sequence[str]
    stood_still: Sequence[str] = ()


Injure = Callable[[World, Durations], Healed]


@dataclass(frozen=True, slots=True)
class Kind:
    """``often``: it is done a hundred times in the long form, the others ten times.  ``long``: it takes long.

    A world that is ``spent`` is not as before when the fault is healed: the next one needs another.
    """

    name: str
    injure: Injure
    often: bool = True
    long: bool = False
    plan: Plan = field(default_factory=Plan)
    spent: bool = False


def end_agent(how: Signals) -> Injure:
    return lambda world, durations: _end(world, _any_host(world), how)


def end_controller(how: Signals) -> Injure:
    return lambda world, durations: _end(world, world.leader, how)


def _end(world: World, name: str, how: Signals) -> Healed:
    daemon = world.daemons[name]
    daemon.stop(how)
    world.sleep(random.uniform(0, RESTART_S))
    at = time.monotonic()
    daemon.start()
    return Healed(at, _concerned(world, name))


def stop_agent(world: World, durations: Durations) -> Healed:
    return _stop(world, _any_host(world), durations.stop_s)


def stop_controller(world: World, durations: Durations) -> Healed:
    return _stop(world, world.leader, durations.stop_s)


def _stop(world: World, name: str, seconds: float) -> Healed:
    daemon = world.daemons[name]
    daemon.signal(SIGSTOP)
    concerned = _concerned(world, name)
    with _others_go_on(world, concerned) as still:
        world.sleep(seconds)
    at = time.monotonic()
    daemon.signal(SIGCONT)
    return Healed(at, concerned, still)


def part_host(world: World, durations: Durations) -> Healed:
    host = _any_host(world)
    world.network.part(host)
    with _others_go_on(world, [host]) as still:
        world.sleep(durations.part_s)
    at = time.monotonic()
    world.network.heal()
    return Healed(at, [host], still)


def kill_controller_while_parted(world: World, durations: Durations) -> Healed:
    """It starts again, and knows of one host only what is on its disk."""
    host, controller = _any_host(world), world.daemons[world.leader]
    world.network.part(host)
    controller.stop(SIGKILL)
    controller.start()
    world.sleep(durations.part_s)
    at = time.monotonic()
    world.network.heal()
    return Healed(at, world.plan.hosts)


def fill_disks(world: World, durations: Durations) -> Healed:
    """Limits move on meanwhile, and an agent that starts meanwhile is back."""
    ballast = world.state / "ballast"
    _fill(ballast)
    with _others_go_on(world, []) as still:
        world.sleep(durations.full_s)
    host = _any_host(world)
    world.daemons[host].stop(SIGKILL)
    started = time.monotonic()
    world.daemons[host].start()
    world.wait_as_before(started, [host])
    at = time.monotonic()
    ballast.unlink()
    return Healed(at, world.plan.hosts, still)


def _fill(ballast: Path) -> None:
    """To the last byte, in ever smaller pieces."""
    size = 1 << 20
    with ballast.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(b"\1" * size)
            except OSError:
                size //= 2
        os.fsync(file.fileno())


def promote_after_death(world: World, durations: Durations) -> Healed:
    """The leader is killed for good.  From the promotion on."""
    world.daemons[world.leader].stop(SIGKILL)
    world.sleep(random.uniform(0, RESTART_S))
    return Healed(_promote(world), world.plan.hosts)


def promote_while_parted(world: World, durations: Durations) -> Healed:
    """The leader lives on with one host, on the other side; it is ended when they see each other again."""
    world.network.part(world.leader, world.plan.hosts[0])
    return _promote_beside_another(world, durations)


def promote_stranger(world: World, durations: Durations) -> Healed:
    """The same, with a standby that was made anew meanwhile, and has never met that host.

    The other host has heard of it: one that is new, and forgotten by whom it met before anybody else knows of
    it, is more than one fault.
    """
    world.sleep(HEARD_S)
    standby = world.daemons[world.other_controller]
    standby.stop()
    world.network.part(world.leader, world.plan.hosts[0])
    shutil.rmtree(standby.state)
    standby.state.mkdir()
    standby.start()
    return _promote_beside_another(world, durations)


def _promote_beside_another(world: World, durations: Durations) -> Healed:
    old = world.leader
    world.sleep(durations.full_s)
    _promote(world)
    world.sleep(durations.part_s)
    world.network.heal()
    world.sleep(1.0)  # both lead, and see each other
    at = time.monotonic()
    world.daemons[old].stop(SIGTERM)
    return Healed(at, world.plan.hosts)


def _promote(world: World) -> float:
    world.leader = world.other_controller
    at = time.monotonic()
    world.ask("promote")
    return at


def restart_docker(engine: DockerEngine) -> Injure:
    """``engine`` is the first host's, whose other cgroups go on meanwhile."""

    def injure(world: World, durations: Durations) -> Healed:
        engine.stop()
        with _others_go_on(world, []) as still:
            world.sleep(durations.full_s)
        engine.start()
        at = time.monotonic()
        engine.docker("start", DOCKED)
        while not any(row["name"] == DOCKED and row["state"] == "managed" for row in world.ask("ps")):
            if time.monotonic() > at + 20:
                raise TimeoutError(f"the container is not managed again\n{world.logs()}")
            world.sleep(0.02)
        return Healed(at, world.plan.hosts, still)

    return injure


@contextmanager
def docker_kind() -> Iterator[Kind]:
    """Raises EngineTrouble where there is no engine to be had."""
    with running_engine() as engine:
        engine.run("--label", f"escra.app={DOCKED}", "--network=none", name=DOCKED)
        plan = Plan(docker=engine.socket.removeprefix("unix://"))
        yield Kind("docker-restart", restart_docker(engine), often=False, plan=plan)


TWO_CONTROLLERS = Plan(controllers=("c1", "c2"))
KINDS = (
    Kind("stop30-agent", stop_agent, long=True),
    Kind("stop30-controller", stop_controller, long=True),
    Kind("kill9-agent", end_agent(SIGKILL)),
    Kind("kill9-controller", end_controller(SIGKILL)),
    Kind("restart-agent", end_agent(SIGTERM)),
    Kind("restart-controller", end_controller(SIGTERM)),
    Kind("partition60", part_host, often=False, long=True),
    Kind("kill9-controller-parted", kill_controller_while_parted, often=False, long=True),
    Kind("disk-full", fill_disks, often=False, plan=Plan(disk_mib=8)),
    Kind("promote-dead", promote_after_death, often=False, plan=TWO_CONTROLLERS, spent=True),
    Kind("promote-stranger", promote_stranger, often=False, long=True, plan=TWO_CONTROLLERS, spent=True),
    Kind("promote-parted", promote_while_parted, often=False, long=True, plan=TWO_CONTROLLERS, spent=True),
)


def _any_host(world: World) -> str:
    return random.choice(list(world.plan.hosts))


def _concerned(world: World, name: str) -> Sequence[str]:
    return [name] if name in world.plan.hosts else world.plan.hosts


@contextmanager
def _others_go_on(world: World, but: Sequence[str]) -> Iterator[list[str]]:
    """Yields a list of those hosts on which no limit moves in the block, once the fault was noticed."""
    still: list[str] = []
    began = time.monotonic()
    yield still
    noticed = min(began + NOTICED_S, (began + time.monotonic()) / 2)
    still += [
        host for host in world.plan.hosts if host not in but and world.moved_since(noticed, host) is None
    ]
