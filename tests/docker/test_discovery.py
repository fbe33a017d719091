"""Containers found through a real Docker Engine, in everything that can happen to them."""

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable

import pytest

from escra_agent.docker import Changed, DockerEvent, DockerWatcher, Started, Stopped, Synced
from escra_agent.errors import CgroupGone
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from tests.docker_engine import DockerEngine

pytestmark = pytest.mark.docker

LABEL = ("--label", "escra.app=shop")


class Watched:
    """A watcher at work; ``next`` is its next event."""

    def __init__(self, socket: str) -> None:
        self.troubles: list[str] = []
        self.last_seen = 0.0
        self.watcher = DockerWatcher(socket, on_trouble=self.troubles.append)
        self.events: asyncio.Queue[DockerEvent] = asyncio.Queue()

    async def next(self, seconds: float = 10) -> DockerEvent:
        return await asyncio.wait_for(self.events.get(), seconds)

    async def nothing(self, seconds: float = 0.5) -> None:
        await asyncio.sleep(seconds)
        assert self.events.empty(), self.events.get_nowait()

    async def fill(self) -> None:
        async with contextlib.aclosing(self.watcher.watch()) as events:
            async for event in events:
                self.last_seen = time.time()
                self.events.put_nowait(event)


def watching(address: str, scene: Callable[[Watched], Awaitable[None]]) -> Watched:
    """Plays ``scene`` while a watcher runs, and checks that the watcher ends when it is cancelled."""

    async def play() -> Watched:
        watched = Watched(address)
        filling = asyncio.create_task(watched.fill())
        try:
            await scene(watched)
        finally:
            filling.cancel()
            await asyncio.wait_for(asyncio.wait([filling]), 5)
        assert filling.cancelled(), filling.exception()
        assert len(asyncio.all_tasks()) == 1
        return watched

    return asyncio.run(play())


def follow(running: set[str], event: DockerEvent) -> None:
    """What a reader of the events believes to run; an event that does not fit is an error."""
    match event:
        case Synced(containers):
            running.clear()
            running.update(container.id for container in containers)
        case Started(container):
            assert container.id not in running
            running.add(container.id)
        case Stopped(container_id):
            running.remove(container_id)
        case Changed(container):
            assert container.id in running


async def engine_does(function: Callable[..., str], *arguments: str, **named: str) -> str:
    """In a thread, so that the watcher goes on meanwhile."""
    return await asyncio.to_thread(function, *arguments, **named)


def test_the_first_event_is_all_that_runs_already(docker_engine: DockerEngine, hierarchy: Hierarchy) -> None:
    first = docker_engine.run(*LABEL, "--cpus=0.5", "--memory=64m", name="first")
    docker_engine.run(name="unlabelled")
    ended = docker_engine.run(*LABEL, name="ended", script="true")
    docker_engine.docker("wait", ended)

    async def scene(watched: Watched) -> None:
        event = await watched.next()
        assert isinstance(event, Synced)
        (container,) = event.containers
        assert (container.id, container.name) == (first, "first")
        assert container.labels["escra.app"] == "shop"
        assert container.cpu == CpuLimit(50_000, 100_000)
        assert container.memory_bytes == 64 << 20
        assert hierarchy.open_pid(container.pid).path.endswith(first)
        await watched.nothing()

    assert watching(docker_engine.socket, scene).troubles == []


def test_start_and_stop(docker_engine: DockerEngine, hierarchy: Hierarchy) -> None:
    async def scene(watched: Watched) -> None:
        assert await watched.next() == Synced([])
        container_id = await engine_does(docker_engine.run, *LABEL, "--cpu-quota=30000", name="web")
        started = await watched.next()
        assert isinstance(started, Started)
        assert started.container.id == container_id
        cgroup = hierarchy.open_pid(started.container.pid)
        assert cgroup.path == f"{docker_engine.cgroup_parent}/{container_id}"
        assert cgroup.read_limit() == started.container.cpu == CpuLimit(30_000, 100_000)
        await engine_does(docker_engine.run, name="unlabelled")
        await engine_does(docker_engine.docker, "kill", "web")
        assert await watched.next() == Stopped(container_id)
        with pytest.raises(CgroupGone):
            cgroup.read()
        cgroup.close()
        await watched.nothing()

    assert watching(docker_engine.socket, scene).troubles == []


def test_restart_is_a_stop_and_a_start(docker_engine: DockerEngine) -> None:
    container_id = docker_engine.run(*LABEL, name="web")

    async def scene(watched: Watched) -> None:
        synced = await watched.next()
        assert isinstance(synced, Synced)
        await engine_does(docker_engine.docker, "restart", "--time=0", "web")
        assert await watched.next() == Stopped(container_id)
        started = await watched.next()
        assert isinstance(started, Started)
        assert started.container.id == container_id
        assert started.container.pid != synced.containers[0].pid
        await watched.nothing()

    watching(docker_engine.socket, scene)


def test_rename_and_docker_update_are_changes(docker_engine: DockerEngine) -> None:
    container_id = docker_engine.run(*LABEL, "--cpus=0.5", name="old")

    async def scene(watched: Watched) -> None:
        await watched.next()
        await engine_does(docker_engine.docker, "rename", "old", "new")
        renamed = await watched.next()
        assert isinstance(renamed, Changed)
        assert (renamed.container.id, renamed.container.name) == (container_id, "new")
        await engine_does(docker_engine.docker, "update", "--cpus=0.75", "new")
        updated = await watched.next()
        assert isinstance(updated, Changed)
        assert updated.container.cpu == CpuLimit(75_000, 100_000)
        await engine_does(docker_engine.docker, "pause", "new")
        await engine_does(docker_engine.docker, "unpause", "new")
        await watched.nothing()

    watching(docker_engine.socket, scene)


def test_a_container_that_is_gone_at_once_leaves_nothing_behind(docker_engine: DockerEngine) -> None:
    async def scene(watched: Watched) -> None:
        await watched.next()
        for _ in range(3):
            await engine_does(docker_engine.run, "--rm", *LABEL, script="true")
        stays = await engine_does(docker_engine.run, *LABEL)
        running: set[str] = set()
        while stays not in running:
            follow(running, await watched.next())
        await asyncio.sleep(0.5)
        while not watched.events.empty():
            follow(running, watched.events.get_nowait())
        assert running == {stays}

    assert watching(docker_engine.socket, scene).troubles == []


def test_an_engine_restart_is_one_trouble_and_a_new_full_picture(docker_engine: DockerEngine) -> None:
    before = docker_engine.run(*LABEL, name="before")

    async def scene(watched: Watched) -> None:
        running: set[str] = set()
        follow(running, await watched.next())
        assert running == {before}
        await asyncio.to_thread(docker_engine.stop)
        await asyncio.to_thread(docker_engine.start)
        after = await engine_does(docker_engine.run, *LABEL, name="after")
        kinds = set()
        while running != {after}:
            event = await watched.next()
            kinds.add(type(event))
            follow(running, event)
        assert Synced in kinds
        await watched.nothing()

    watched = watching(docker_engine.socket, scene)
    assert len(watched.troubles) == 1
    assert "went away" in watched.troubles[0]


def test_an_engine_that_is_not_there_is_waited_for() -> None:
    with tempfile.TemporaryDirectory() as directory:

        async def scene(watched: Watched) -> None:
            await watched.nothing(1.0)

        watched = watching(f"unix://{directory}/none.sock", scene)
    assert len(watched.troubles) == 1
    assert "none.sock" in watched.troubles[0]
    assert "trying again" in watched.troubles[0]


def test_something_else_behind_the_socket_is_trouble_and_no_crash() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/other.sock")
        listener.listen()
        listener.setblocking(False)

        async def answer() -> None:
            loop = asyncio.get_running_loop()
            while True:
                connection, _ = await loop.sock_accept(listener)
                await loop.sock_recv(connection, 4096)
                await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
                connection.close()

        async def scene(watched: Watched) -> None:
            answering = asyncio.create_task(answer())
            await watched.nothing(1.0)
            answering.cancel()
            await asyncio.wait([answering])

        watched = watching(f"unix://{directory}/other.sock", scene)
    assert len(watched.troubles) == 1


def test_a_started_container_is_reported_within_milliseconds(docker_engine: DockerEngine) -> None:
    async def scene(watched: Watched) -> None:
        await watched.next()
        delays = []
        for _ in range(10):
            before = time.time()
            container_id = await engine_does(docker_engine.run, *LABEL)
            assert isinstance(await watched.next(), Started)
            delays.append(watched.last_seen - await start_time(container_id, before))
        print("start event to report, ms:", [round(delay * 1000, 1) for delay in delays])
        # Measured: 2 to 6 ms, once the engine lets go of the container it has just started.
        assert sorted(delays)[5] < 0.05

    async def start_time(container_id: str, since: float) -> float:
        """When the start event was, by the engine's own record."""
        span = (f"--since={since:.6f}", f"--until={time.time():.6f}")
        wanted = (f"--filter=container={container_id}", "--filter=event=start")
        command = ("events", *span, *wanted, "--format={{.TimeNano}}")
        return int(await engine_does(docker_engine.docker, *command)) / 1e9

    watching(docker_engine.socket, scene)
