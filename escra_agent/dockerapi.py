"""One connection to a Docker Engine: what runs, what it says of one container, whom to look at next."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import aiodocker
import aiohttp

from escra_agent.dockeranswers import DockerContainer, NotUnderstood, container_of, id_of
from escra_common.errors import EscraError

_LIST_S = 10.0
# The engine answers about a container only when it is not busy starting, updating or removing
# it, and an engine in trouble may never do; the other containers shall not wait for that.
_LOOK_S = 1.0
_LOOK_AGAIN_S = 2.0
_LOOKS_AT_ONCE = 8
# How the library says that there was no HTTP response at all.
_CANNOT_CONNECT = 900
# What the library raises; from TypeError on, it met something that does not talk like Docker.
_BROKEN = (
    *(aiodocker.DockerError, aiohttp.ClientError, OSError),
    *(TypeError, LookupError, ValueError, AttributeError, NotUnderstood),
)


class EngineLost(EscraError):
    """The connection to the engine ended, or never came to be."""


class NoAnswer(EscraError):
    """The engine is there, but has no answer about one container."""


class Engine:
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
        self.stream = asyncio.create_task(self._stream())

    async def _stream(self) -> None:
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
            with self._translated(), contextlib.suppress(aiohttp.ClientPayloadError):
                await self.stream
            raise EngineLost(f"{self._at} went away")
        with self._translated():
            return id_of(event)

    def look_later(self, container_id: str) -> None:
        event = {"Actor": {"ID": container_id}}
        asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._subscription.queue.put_nowait, event)

    async def look(self, container_id: str) -> DockerContainer | None:
        """None when it does not run, or no longer exists; raises NoAnswer."""
        with self._translated():
            try:
                async with self._slots, asyncio.timeout(_LOOK_S):
                    return container_of(await self._docker.containers.container(container_id).show())
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
            except NotUnderstood as error:
                raise NoAnswer(f"{self._at} says strange things of {container_id[:12]}: {error}") from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            raise EngineLost(f"no answer from {self._at}: {str(error) or type(error).__name__}") from error


@contextlib.asynccontextmanager
async def connect(socket: str, label: str) -> AsyncGenerator[Engine, None]:
    async with aiodocker.Docker(url=socket) as docker:
        engine = Engine(docker, socket, label)
        try:
            yield engine
        finally:
            engine.stream.cancel()
            await asyncio.wait([engine.stream])
            if not engine.stream.cancelled():
                engine.stream.exception()  # Not of interest any more.
