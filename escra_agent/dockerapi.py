"""One connection to a Docker Engine: what runs, what it says of one container, whom to look at next."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from urllib.parse import quote

from escra_agent.dockeranswers import DockerContainer, NotUnderstood, container_of, id_of, ids_of
from escra_common.dockerhttp import NotHttp, Refused, get, lines
from escra_common.errors import EscraError

_LIST_S = 10.0
# The engine answers about a container only when it is not busy starting, updating or removing
# it, and an engine in trouble may never do; the other containers shall not wait for that.
_LOOK_S = 1.0
_LOOK_AGAIN_S = 2.0
_LOOKS_AT_ONCE = 8
_OK, _NOT_FOUND = 200, 404
# From NotHttp on, it met something that does not talk like Docker.
_BROKEN = (OSError, NotHttp, Refused, NotUnderstood, ValueError, RecursionError)


class EngineLost(EscraError):
    """The connection to the engine ended, or never came to be."""


class NoAnswer(EscraError):
    """The engine is there, but has no answer about one container."""


class Engine:
    """One stream of events from the engine; everything may raise EngineLost."""

    def __init__(self, socket: str, label: str) -> None:
        self._socket = socket.removeprefix("unix://")
        self._label = label
        self._at = f"the Docker Engine at {socket}"
        self._slots = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._answers = False
        # Containers that something happened to; None once the stream has ended.
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
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
        events = lines(self._socket, "/events", since=f"{time.time():.6f}", filters=json.dumps(filters))
        try:
            async with contextlib.aclosing(events):
                async for line in events:
                    self._queue.put_nowait(id_of(json.loads(line)))
        finally:
            self._queue.put_nowait(None)

    async def list(self) -> list[str]:
        with self._translated():
            async with asyncio.timeout(_LIST_S):
                filters = json.dumps({"label": [self._label]})
                status, body = await get(self._socket, "/containers/json", filters=filters)
            if status != _OK:
                raise Refused(f"status {status}: {_message(body)}")
            found = ids_of(json.loads(body))
        self._answers = True
        return found

    async def next_id(self) -> str:
        """Waits for a container that something happened to."""
        container_id = await self._queue.get()
        if container_id is None:
            with self._translated(), contextlib.suppress(NotHttp):
                await self.stream
            raise EngineLost(f"{self._at} went away")
        return container_id

    def look_later(self, container_id: str) -> None:
        asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._queue.put_nowait, container_id)

    async def look(self, container_id: str) -> DockerContainer | None:
        """None when it does not run, or no longer exists; raises NoAnswer."""
        about = container_id[:12]
        with self._translated():
            try:
                async with self._slots, asyncio.timeout(_LOOK_S):
                    status, body = await get(self._socket, f"/containers/{quote(container_id, '')}/json")
            except TimeoutError as error:
                raise NoAnswer(
                    f"{self._at} has no answer about {about}: none within {_LOOK_S:.0f} s"
                ) from error
            if status == _NOT_FOUND:
                return None
            if status != _OK:
                raise NoAnswer(f"{self._at} has no answer about {about}: {_message(body)}")
            try:
                return container_of(json.loads(body))
            except NotUnderstood as error:
                raise NoAnswer(f"{self._at} says strange things of {about}: {error}") from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            why = str(error) or type(error).__name__
            if self._answers and isinstance(error, OSError):
                raise EngineLost(f"{self._at} went away: {why}") from error
            raise EngineLost(f"no answer from {self._at}: {why}") from error


@contextlib.asynccontextmanager
async def connect(socket: str, label: str) -> AsyncGenerator[Engine, None]:
    engine = Engine(socket, label)
    try:
        yield engine
    finally:
        engine.stream.cancel()
        await asyncio.wait([engine.stream])
        if not engine.stream.cancelled():
            engine.stream.exception()  # Not of interest any more.


def _message(body: bytes) -> str:
    """Why the engine refused, in its own words."""
    try:
        said: Any = json.loads(body)
        return str(said["message"])[:300]
    except (ValueError, LookupError, TypeError):
        return repr(body[:300])
