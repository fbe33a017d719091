"""Which labelled containers run, through the Docker API: a full picture first, then each change.

An event from Docker is only a reason to look at one container again.  What is reported comes
from comparing what is there with what was reported last, so an event that comes late, twice
or out of order does no harm.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiodocker
import aiohttp

from escra_common.errors import EscraError
from escra_common.messages import CpuLimit

# dockerd's own period when only a quota is given, and what it makes of --cpus.
_PERIOD_USEC = 100_000
_LIST_S = 10.0
# The engine answers about a container only when it is not busy starting, updating or removing
# it, and an engine in trouble may never do; the other containers shall not wait for that.
_LOOK_S = 1.0
_LOOK_AGAIN_S = 2.0
_LOOKS_AT_ONCE = 8
_BROKEN = (aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class DockerContainer:
    """A running container.  The limits are what Docker was told, not what the kernel holds."""

    id: str
    name: str
    pid: int
    labels: Mapping[str, str]
    cpu: CpuLimit
    cpuset: str
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Synced:
    """All of them: what is not listed does not run.  First, and again after each reconnect."""

    containers: list[DockerContainer]


@dataclass(frozen=True, slots=True)
class Started:
    container: DockerContainer


@dataclass(frozen=True, slots=True)
class Stopped:
    id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A new name, or `docker update`."""

    container: DockerContainer


DockerEvent = Synced | Started | Stopped | Changed


class EngineLost(EscraError):
    """The connection to the engine ended, or never came to be."""


class NoAnswer(EscraError):
    """The engine is there, but has no answer about one container."""


class DockerWatcher:
    """Only running containers that carry ``label`` are reported.

    ``on_trouble`` gets one line for people each time the engine goes away (not per attempt to
    reach it), and for each container that the engine has no answer about.
    """

    def __init__(
        self,
        socket: str = "unix:///run/docker.sock",
        label: str = "escra.app",
        on_trouble: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._socket = socket
        self._label = label
        self._on_trouble = on_trouble
        self._reported: dict[str, DockerContainer] = {}
        self._unanswered: set[str] = set()

    async def watch(self) -> AsyncGenerator[DockerEvent, None]:
        """Never ends by itself, whatever the engine does: cancel it, or close it (contextlib.aclosing)."""
        delays, lost = _backoff(), False
        while True:
            try:
                async with contextlib.aclosing(self._follow()) as events:
                    async for event in events:
                        delays, lost = _backoff(), False
                        yield event
            except EngineLost as error:
                if not lost:
                    self._on_trouble(f"{error}; trying again until it answers")
                lost = True
                await asyncio.sleep(next(delays))

    async def _follow(self) -> AsyncGenerator[DockerEvent, None]:
        """One connection, until it ends with EngineLost."""
        async with _connect(self._socket, self._label) as engine:
            ids = await engine.list()
            looks = await asyncio.gather(*(self._look(engine, container_id) for container_id in ids))
            self._reported = {container.id: container for container in looks if container is not None}
            yield Synced(list(self._reported.values()))
            while True:
                for event in await self._look_again(engine, await engine.next_id()):
                    yield event

    async def _look_again(self, engine: "_Engine", container_id: str) -> list[DockerEvent]:
        now = await self._look(engine, container_id)
        before = self._reported.pop(container_id, None)
        if now is None:
            return [] if before is None else [Stopped(container_id)]
        self._reported[container_id] = now
        if before is None:
            return [Started(now)]
        if before.pid != now.pid:
            return [Stopped(container_id), Started(now)]
        return [] if before == now else [Changed(now)]

    async def _look(self, engine: "_Engine", container_id: str) -> DockerContainer | None:
        """None when it does not run.  Without an answer, what was known last, and another look later."""
        try:
            container = await engine.look(container_id)
        except NoAnswer as error:
            if container_id not in self._unanswered:
                self._on_trouble(str(error))
            self._unanswered.add(container_id)
            engine.look_later(container_id)
            return self._reported.get(container_id)
        self._unanswered.discard(container_id)
        return container


class _Engine:
    """One connection to the engine; everything may raise EngineLost."""

    def __init__(self, docker: aiodocker.Docker, socket: str, label: str) -> None:
        self._docker = docker
        self._label = label
        self._at = f"the Docker Engine at {socket}"
        self._slots = asyncio.Semaphore(_LOOKS_AT_ONCE)
        # The library ends a broken stream without an error: it puts a None into the queue.
        # The subscription ends with the object that subscribe() returns, so that is what is kept.
        events: Any = docker.events
        self._subscription = events.subscribe(create_task=False)

    async def stream(self) -> None:
        """Fill the queue with events from this moment on, until the engine goes away.

        With ``since`` the engine also sends what happened before this request reached it, so
        nothing falls between the stream and the list that is read next.
        """
        filters = {
            "type": ["container"],
            "event": ["start", "die", "rename", "update"],
            "label": [self._label],
        }
        await self._docker.events.run(since=f"{time.time():.6f}", filters=json.dumps(filters))

    async def list(self) -> list[str]:
        with self._translated():
            async with asyncio.timeout(_LIST_S):
                listed = await self._docker.containers.list(filters=json.dumps({"label": [self._label]}))
        return [container.id for container in listed]

    async def next_id(self) -> str:
        """Waits for a container that something happened to."""
        event = await self._subscription.queue.get()
        if event is None:
            raise EngineLost(f"{self._at} went away")
        container_id: str = event["Actor"]["ID"]
        return container_id

    def look_later(self, container_id: str) -> None:
        event = {"Actor": {"ID": container_id}}
        asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._subscription.queue.put_nowait, event)

    async def look(self, container_id: str) -> DockerContainer | None:
        """None when it does not run, or no longer exists; raises NoAnswer."""
        with self._translated():
            try:
                async with self._slots, asyncio.timeout(_LOOK_S):
                    return _running(await self._docker.containers.container(container_id).show())
            except TimeoutError as error:
                reason = f"none within {_LOOK_S:.0f} s"
                raise NoAnswer(f"{self._at} has no answer about {container_id[:12]}: {reason}") from error
            except aiodocker.DockerError as error:
                if error.status == 404:
                    return None
                if error.status == _CANNOT_CONNECT:
                    raise
                raise NoAnswer(
                    f"{self._at} has no answer about {container_id[:12]}: {error.message}"
                ) from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            raise EngineLost(f"no answer from {self._at}: {error or type(error).__name__}") from error


# How aiodocker says that there was no HTTP response at all.
_CANNOT_CONNECT = 900


@contextlib.asynccontextmanager
async def _connect(socket: str, label: str) -> AsyncGenerator[_Engine, None]:
    async with aiodocker.Docker(url=socket) as docker:
        engine = _Engine(docker, socket, label)
        stream = asyncio.create_task(engine.stream())
        try:
            yield engine
        finally:
            stream.cancel()
            await asyncio.wait([stream])
            if not stream.cancelled():
                stream.exception()  # Seen already, as the end of the queue.


def _running(shown: Mapping[str, Any]) -> DockerContainer | None:
    """What `docker inspect` says, as far as it matters here."""
    state, config, host = shown["State"], shown["Config"], shown["HostConfig"]
    # Between two attempts of a restart policy a container counts as running, without a process.
    if not state["Running"] or not state["Pid"]:
        return None
    return DockerContainer(
        id=shown["Id"],
        name=shown["Name"].removeprefix("/"),
        pid=state["Pid"],
        labels=config.get("Labels") or {},
        cpu=_cpu_limit(host.get("NanoCpus") or 0, host.get("CpuQuota") or 0, host.get("CpuPeriod") or 0),
        cpuset=host.get("CpusetCpus") or "",
        memory_bytes=host.get("Memory") or None,
    )


def _cpu_limit(nano_cpus: int, quota_usec: int, period_usec: int) -> CpuLimit:
    """`--cpus` or `--cpu-quota` and `--cpu-period`; 0 is "not given", a quota of -1 "none"."""
    if nano_cpus:
        return CpuLimit(nano_cpus * _PERIOD_USEC // 10**9, _PERIOD_USEC)
    return CpuLimit(quota_usec if quota_usec > 0 else None, period_usec or _PERIOD_USEC)


def _backoff() -> Iterator[float]:
    """Seconds to wait: 0.1, 0.2, 0.4 ... 5, 5, 5."""
    delay = 0.1
    while True:
        yield delay
        delay = min(2 * delay, 5.0)
