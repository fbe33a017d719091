"""Containers that are started when there is work for them: what OpenWhisk's invoker does, on one host.

An invocation goes to an idle container, the one that was used last; when there is none, another is
started, as long as the pool has room; else the invocation waits.  A container has one job at a time.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compare.invocations import Function, Invocation
from tests.debian_image import PILLOW

SOURCE = Path(__file__).with_name("function.py")
# Who invoked has lost interest by then.
PATIENCE_S = 30.0
SHORT_ID = 12
KILLED = 137


class DockerTrouble(RuntimeError):
    """The engine refused."""


@dataclass(slots=True)
class Work:
    """An invocation on its way; ``answer`` is None when its container was lost."""

    job: bytes
    answer: "asyncio.Future[bytes | None]"
    cold: bool = False


@dataclass(slots=True)
class Container:
    """``ended`` is done when the container has exited; ``expiry`` is its end for want of work."""

    ended: "asyncio.Future[None]"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Invoker:
    """Invokes within ``serving``; ``started`` counts containers, ``lost`` those that ended with a job."""

    docker: str
    folder: Path
    function: Function
    labels: dict[str, str]
    started: int = 0
    lost: int = 0
    oom_kills: int = 0
    _alive: int = 0
    _closing: bool = False
    _starting: int = 0
    _idle: list[Container] = field(default_factory=list)
    _waiting: deque[Work] = field(default_factory=deque)
    # By short id, until it has dialled.
    _expected: dict[str, "asyncio.Future[None]"] = field(default_factory=dict)
    _tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Invoker"]:
        """Until the end of the block, and of all containers."""
        server = await asyncio.start_unix_server(self._serve, self.folder / "socket")
        try:
            async with self._tasks:
                yield self
                self._closing = True
                for container in list(self._idle):
                    self._end(container)
        finally:
            server.close()
            self._threads.shutdown()

    async def invoke(self, start: float, planned_at: float, payload: bytes = b"") -> Invocation:
        """At its time (s after ``start``, time.monotonic)."""
        await asyncio.sleep(max(0.0, start + planned_at - time.monotonic()))
        sent_at = time.monotonic() - start
        work, answer = await self._do(self.function.kind, payload, **self.function.arguments)
        ended_at = time.monotonic() - start if answer is not None else float("inf")
        return Invocation(planned_at, sent_at, ended_at, work.cold)

    async def ask(self, kind: str, **arguments: Any) -> bytes:
        """A job of any kind, for its result."""
        _, answer = await self._do(kind, b"", **arguments)
        if answer is None:
            raise DockerTrouble(f"the container that was to do {kind!r} ended")
        return answer

    async def _do(self, kind: str, payload: bytes, **arguments: Any) -> tuple[Work, bytes | None]:
        head = json.dumps({"kind": kind, "size": len(payload), **arguments}).encode()
        work = Work(head + b"\n" + payload, asyncio.get_running_loop().create_future())
        self._waiting.append(work)
        self._dispatch()
        return work, await work.answer

    # ---- the pool ------------------------------------------------------------------

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            container = self._idle.pop()
            if container.expiry is not None:
                container.expiry.cancel()
            self._tasks.create_task(self._work(container, self._waiting.popleft()))
        room = self.function.pool - self._alive
        for work in list(self._waiting)[self._starting :][:room]:
            work.cold = True
            self._alive += 1
            self._starting += 1
            self.started += 1
            self._tasks.create_task(self._live(f"{self.function.name}-{self.started}"))

    async def _live(self, name: str) -> None:
        """A container from its beginning to its end."""
        container = (await self._call("POST", f"/containers/create?name={name}", self._spec()))["Id"]
        ended = self._expected[container[:SHORT_ID]] = asyncio.get_running_loop().create_future()
        await self._call("POST", f"/containers/{container}/start")
        status = (await self._call("POST", f"/containers/{container}/wait"))["StatusCode"]
        if status:
            state = (await self._call("GET", f"/containers/{container}/json"))["State"]
            self.oom_kills += bool(state["OOMKilled"])
            self.lost += 1
        if self._expected.pop(container[:SHORT_ID], None):
            raise DockerTrouble(f"{name} ended with status {status} before it asked for work")
        self._alive -= 1
        ended.set_result(None)
        await self._call("DELETE", f"/containers/{container}?force=1")
        self._dispatch()

    def _spec(self) -> dict[str, Any]:
        size = self.function.memory_mib << 20
        return {
            "Image": PILLOW,
            "Cmd": ["/usr/bin/python3", "/function.py", "/invoker/socket"],
            "Labels": self.labels,
            "HostConfig": {
                "NanoCpus": round(self.function.cores * 1e9),
                "Memory": size,
                "MemorySwap": size,
                "NetworkMode": "none",
                "Binds": [f"{self.folder}:/invoker", f"{SOURCE}:/function.py:ro"],
            },
        }

    # ---- one container -------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """It has begun, and says who it is."""
        name = (await reader.readline()).decode().strip()
        self._starting -= 1
        self._free(Container(self._expected.pop(name), reader, writer))

    def _free(self, container: Container) -> None:
        self._idle.append(container)
        self._dispatch()
        if container not in self._idle:
            return
        if self._closing:
            self._end(container)
        else:
            loop = asyncio.get_running_loop()
            container.expiry = loop.call_later(self.function.keep_s, self._end, container)

    async def _work(self, container: Container, work: Work) -> None:
        container.writer.write(work.job)
        answer: bytes | None
        try:
            head = json.loads(await container.reader.readline())
            answer = await container.reader.readexactly(head["size"])
        except (OSError, ValueError, asyncio.IncompleteReadError):
            answer = None
        if answer is None or self.function.once:
            container.writer.close()
            await container.ended
        else:
            self._free(container)
        work.answer.set_result(answer)

    def _end(self, container: Container) -> None:
        """Its program ends with the connection."""
        self._idle.remove(container)
        container.writer.close()

    # ---- the engine ----------------------------------------------------------------

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _call, self.docker, method, path, body
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _call(address: str, method: str, path: str, body: Any) -> Any:
    """One question to a Docker Engine; its answer.  Raises DockerTrouble."""
    connection = _UnixConnection(address.removeprefix("unix://"))
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise DockerTrouble(f"{method} {path}: {response.status} {text.decode(errors='replace').strip()}")
    return json.loads(text) if text.strip() else None
