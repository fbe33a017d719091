"""Which labelled containers run, through the Docker API: a full picture first, then each change.

An event from Docker is only a reason to look at one container again.  What is reported comes
from comparing what is there with what was reported last, so an event that comes late, twice
or out of order does no harm.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass

from escra_agent.dockeranswers import DockerContainer
from escra_agent.dockerapi import Engine, EngineLost, NoAnswer, connect

__all__ = ["Changed", "DockerContainer", "DockerEvent", "DockerWatcher", "Started", "Stopped", "Synced"]

# A connection that served this long was a good one: its end is news, and worth a quick new try.
_STEADY_S = 10.0


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
            synced = math.inf
            try:
                async with contextlib.aclosing(self._follow()) as events:
                    async for event in events:
                        synced = min(synced, time.monotonic())
                        yield event
            except EngineLost as error:
                if time.monotonic() - synced > _STEADY_S:
                    delays, lost = _backoff(), False
                if not lost:
                    self._on_trouble(f"{error}; trying again until it answers")
                lost = True
                await asyncio.sleep(next(delays))

    async def _follow(self) -> AsyncGenerator[DockerEvent, None]:
        """One connection, until it ends with EngineLost."""
        async with connect(self._socket, self._label) as engine:
            ids = await engine.list()
            looks = await asyncio.gather(*(self._look(engine, container_id) for container_id in ids))
            self._reported = {container.id: container for container in looks if container is not None}
            yield Synced(list(self._reported.values()))
            while True:
                for event in await self._look_again(engine, await engine.next_id()):
                    yield event

    async def _look_again(self, engine: Engine, container_id: str) -> list[DockerEvent]:
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

    async def _look(self, engine: Engine, container_id: str) -> DockerContainer | None:
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


def _backoff() -> Iterator[float]:
    """Seconds to wait: 0.1, 0.2, 0.4 ... 5, 5, 5."""
    delay = 0.1
    while True:
        yield delay
        delay = min(2 * delay, 5.0)
