"""Where the daemons touch the world: each such name in their modules leads into the simulation.

Everything else of the two daemons is the production code, put together by its own ``Agent`` and
``Controller``.
The names are replaced once per Python process (``install``); what they mean is decided by the
simulated process whose code runs (``clockwork.running``).
"""

import asyncio
import contextlib
import errno
import os
import select
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil

import escra_agent.app
import escra_agent.dialing
import escra_agent.guarding
import escra_agent.keeper
import escra_agent.lookout
import escra_agent.memorykeeper
import escra_agent.memorymarks
import escra_agent.originals
import escra_agent.resting
import escra_agent.sources
import escra_agent.standing
import escra_controller.app
import escra_controller.leadership
import escra_controller.store
from escra_agent.docker import DockerEvent
from escra_agent.originals import OriginalsStore
from escra_agent.parts import Part, Parts
from escra_common.configfile import Address
from tests.simulation import cgroups, statedisk
from tests.simulation.cgroups import SimulatedEpoll, SimulatedGuard, SimulatedHierarchy, SimulatedNotices
from tests.simulation.clockwork import Process

if TYPE_CHECKING:
    from tests.simulation.hosts import ControllerHost, Machine

# The world that runs now, one per Python process; set by World.
_homes: dict[int, Any] = {}
_replaced: list[tuple[ModuleType, str, object]] = []
_running: Callable[[], Process | None]


def inhabit(running: Callable[[], Process | None]) -> None:
    """From now on ``running`` says whose code runs."""
    global _running
    _running = running
    _homes.clear()


def settle(process: Process, home: object) -> None:
    _homes[id(process)] = home


def here() -> Process:
    process = _running()
    assert process is not None, "code of a daemon runs outside of its process"
    return process


def home() -> Any:
    """The host of the process whose code runs."""
    return _homes[id(here())]


def machine() -> "Machine":
    found: Machine = home()
    return found


# ---- time, chance, words -----------------------------------------------------------


class _Time(ModuleType):
    """As the module ``time``: the clocks of the host whose process runs."""

    def monotonic(self) -> float:
        return here().time()

    def monotonic_ns(self) -> int:
        return int(here().time() * 1e9)

    def clock_gettime(self, _: int) -> float:
        return here().time()

    def time(self) -> float:
        process = here()
        return process.clock.wall + process.clockwork.now


class _Random(ModuleType):
    def uniform(self, low: float, high: float) -> float:
        return here().clockwork.rng.uniform(low, high)


class _Log:
    """As a structlog logger: what is said goes into the world's record."""

    def _say(self, event: str, **fields: object) -> None:
        if not here().clockwork.ended:
            words = " ".join(f"{name}={value}" for name, value in fields.items() if name != "kind")
            home().say(f"{event} {words}")

    debug = info = warning = error = exception = _say


class _Quiet:
    """As escra_common.service.Watchdog without systemd."""

    def ping(self, now: float) -> None:
        pass


class _Unhurried:
    """As escra_agent.promptness.Promptness, of a process that has its processor to itself."""

    def __init__(self, wanted: bool) -> None:
        pass

    def begin(self) -> None:
        pass

    def close(self) -> None:
        pass


async def _no_signals(reload: Callable[[], None]) -> None:
    await asyncio.Future()


async def _no_people(*_: object) -> None:
    await asyncio.Future()


@contextlib.contextmanager
def _no_socket(*_: object) -> Iterator[None]:
    yield


# ---- the agent's files -------------------------------------------------------------


class Folder:
    """As the Path of a state directory, on the simulated disk of a host; its files as their Paths."""

    def __init__(self, disk: dict[str, bytes], name: str = "") -> None:
        self.disk, self.name = disk, name

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.disk, name)

    def read_bytes(self) -> bytes:
        if self.name not in self.disk:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self.disk[self.name]

    def __str__(self) -> str:
        return self.name


class _Originals(OriginalsStore):
    def __init__(self, path: Folder, boot_id: str | None = None) -> None:
        super().__init__(str(path), machine().boot_id)
        self.path = path  # type: ignore[assignment]


class _Parts(Parts):
    """In a file that outlives the agent; ``Machine.parts`` does."""

    def __init__(self, path: Folder, boot_id: str) -> None:
        self._machine = machine()

    def found(self) -> dict[int, Part]:
        return dict(self._machine.parts)

    def begin(self) -> None:
        self._machine.parts.clear()

    def note(self, key: int, part: Part) -> None:
        self._machine.parts[key] = part

    def clear(self, key: int) -> None:
        self._machine.parts.pop(key, None)

    def close(self) -> None:
        pass


def _write_atomically(path: Folder, body: bytes) -> None:
    if machine().disk_full:
        raise OSError(errno.ENOSPC, "No space left on device")
    path.disk[path.name] = body


class _BootId:
    def read_text(self) -> str:
        return machine().boot_id


# ---- the controller's doors and files ------------------------------------------------


class _Reception:
    """As escra_controller.reception.Reception, which accepts real sockets."""

    def __init__(self, listeners: tuple[str, int], attend: Callable[..., Any], credentials: None) -> None:
        self._address, self._attend = listeners, attend

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:

            def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.create_task(self._attend(reader, writer, lambda: None))

            await asyncio.start_server(attend, *self._address)
            await asyncio.Future()


async def _reach(address: Address) -> tuple[str, int]:
    """As escra_agent.dialing._reach; whether anybody is there is seen when the connection is made."""
    return address.host, address.port


class _Lock:
    """As escra_common.lock.Lock: of one process at a time, while it lives."""

    def __init__(self, path: object) -> None:
        self._home: ControllerHost = home()

    def try_acquire(self) -> bool:
        return self._home.lock(here())

    def holder(self) -> int | None:
        return None

    def release(self) -> None:
        pass


# ---- the host ----------------------------------------------------------------------


class _Docker:
    """As DockerWatcher: all that runs, then each change."""

    def __init__(self, socket: str, *, on_trouble: Callable[[str], None]) -> None:
        pass

    async def watch(self) -> AsyncGenerator[DockerEvent, None]:
        queue: asyncio.Queue[DockerEvent] = asyncio.Queue()
        # It takes its time to look at everything.
        await asyncio.sleep(here().clockwork.rng.uniform(0, 0.3))
        machine().follow(queue, here())
        while True:
            yield await queue.get()


def _detect() -> SimulatedHierarchy:
    return SimulatedHierarchy(machine().groups, here(), "v2" if machine().banded else "v1")


def _epoll() -> SimulatedEpoll:
    return SimulatedEpoll(machine().groups, here())


def _start_guard(*_: object, **__: object) -> SimulatedGuard:
    return SimulatedGuard(machine().groups, here())


def _standing_in(real: ModuleType, **names: object) -> SimpleNamespace:
    """The module, with some of its names replaced."""
    return SimpleNamespace(**{**vars(real), **names})


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """``install``, and back."""
    install()
    try:
        yield
    finally:
        while _replaced:
            setattr(*_replaced.pop())


def install() -> None:
    """Replace what leads outside, in every module of the daemons that has it."""
    if _replaced:
        return
    substitutes: dict[int, object] = {
        id(time): _copied(_Time("time"), time),
        id(psutil): SimpleNamespace(
            cpu_count=lambda: machine().cpus,
            virtual_memory=lambda: SimpleNamespace(total=machine().memory_bytes),
        ),
    }
    import random
    import socket

    substitutes[id(random)] = _copied(_Random("random"), random)
    substitutes[id(socket)] = _standing_in(socket, gethostname=lambda: home().name)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in ("escra_agent", "escra_controller", "escra_common"):
            continue
        for attribute, value in list(vars(module).items()):
            if id(value) in substitutes:
                _replace(module, **{attribute: substitutes[id(value)]})
            elif attribute == "log" and not isinstance(value, ModuleType):
                _replace(module, log=_Log())
    for app in (escra_agent.app, escra_controller.app):
        _replace(app, on_signals=_no_signals, ready=lambda: None, status=lambda text: None, Watchdog=_Quiet)
    _replace(
        escra_agent.app,
        # A millisecond in production, which here would be most of the work.
        BOUNDARY_POLL_S=0.02,
        Hierarchy=SimpleNamespace(detect=_detect),
        OriginalsStore=_Originals,
        Parts=_Parts,
        BOOT_ID=_BootId(),
        Promptness=_Unhurried,
    )
    _replace(escra_agent.keeper, BOUNDARY_POLL_S=0.02)
    _replace(escra_agent.lookout, LEAST_S=0.02)
    _replace(escra_agent.originals, write_atomically=_write_atomically)
    _replace(escra_agent.standing, write_atomically=_write_atomically)
    _replace(escra_agent.sources, DockerWatcher=_Docker)
    _replace(
        escra_agent.resting,
        WriteNotices=lambda: SimulatedNotices(machine().groups),
        read=lambda fd, most: cgroups.read_sign(machine().groups, fd),
    )
    _replace(escra_agent.memorykeeper, select=_standing_in(select, epoll=_epoll))
    _replace(
        escra_agent.memorymarks,
        set_mark=lambda directory, at: cgroups.set_mark(machine().groups, directory, at),
        os=_standing_in(os, close=lambda fd: cgroups.close_mark(machine().groups, fd)),
    )
    pipe = _standing_in(os, write=cgroups.write_to_guard, set_blocking=lambda *_: None)
    _replace(escra_agent.guarding, subprocess=_standing_in(subprocess, Popen=_start_guard), os=pipe)
    _replace(escra_controller.app, control_socket=_no_socket, serve=_no_people)
    _replace(escra_controller.app, listening_sockets=lambda *address: address, Reception=_Reception)
    _replace(escra_controller.leadership, Lock=_Lock)
    # Once a minute in production, longer than most runs.
    _replace(escra_agent.dialing, VISIT_EVERY_S=6.0, _reach=_reach)
    _replace(escra_controller.store, recover=statedisk.recover, Worker=statedisk.SimulatedWorker)


def _replace(where: ModuleType, **names: object) -> None:
    """A name that is not there any more shall be noticed."""
    for name, value in names.items():
        assert hasattr(where, name), f"{where.__name__} has no {name} any more"
        _replaced.append((where, name, getattr(where, name)))
        setattr(where, name, value)


def _copied(substitute: ModuleType, real: ModuleType) -> ModuleType:
    for name, value in vars(real).items():
        if not hasattr(type(substitute), name):
            setattr(substitute, name, value)
    return substitute
