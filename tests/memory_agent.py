"""The agent's memory side without its link, programs that use memory, and the files to judge by.

The controller is played by the test: ``sent`` is what the agent says.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import uvloop

from escra_agent.labels import Labels
from escra_agent.memorycut import Cutter
from escra_agent.memorygroup import MemoryGroup
from escra_agent.memorykeeper import MemoryKeeper
from escra_agent.originals import OriginalsStore
from escra_agent.roster import Roster
from escra_agent.tracked import Candidate, Tracked, TrackedMemory
from escra_common.messages import (
    DenyMemory,
    MemoryApplied,
    MemoryDrawn,
    MemoryNeed,
    MemoryOrder,
    Message,
    OomKilled,
    SetMemory,
)
from tests.kernel_cgroups import KernelCgroup

MIB = 1 << 20
# Holds as much as the file `want` says; the file `have` follows.
EATER = """
import pathlib, sys, time
folder, blocks, have = pathlib.Path(sys.argv[1]), [], 0
while True:
    want = int((folder / "want").read_text() or 0)
    while have < want:
        blocks.append(b"x" * (1 << 20))
        have += 1 << 20
        (folder / "have").write_text(str(have))
    if have > want:
        blocks.clear()
        have = 0
    time.sleep(0.005)
"""
READER = "import sys\nwith open(sys.argv[1], 'rb', buffering=0) as f:\n  while f.read(1 << 20): pass\n"


class Eater:
    """A process in a cgroup that takes as much memory as it is told to."""

    def __init__(self, cgroup: KernelCgroup, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        (folder / "want").write_text("0")
        (folder / "have").write_text("0")
        self.process = cgroup.start(sys.executable, "-S", "-c", EATER, str(folder))

    def want(self, size: int) -> None:
        new = self._folder / "new"
        new.write_text(str(size))
        new.replace(self._folder / "want")

    @property
    def has(self) -> int:
        return int((self._folder / "have").read_text() or 0)


class Agent:
    """Roster, cutter and keeper as the real one puts them together, with a tick and without a link."""

    def __init__(self, cgroup: KernelCgroup, folder: Path) -> None:
        self._cgroup = cgroup
        self.sent: list[Message] = []
        self.late_s = 0.0
        self.store = OriginalsStore(folder / "originals.json")
        self.store.load()
        self.cutter = Cutter()
        self.roster = Roster(cgroup.hierarchy, self.store, self.sent.append, self.cutter)
        self.keeper = MemoryKeeper(self.roster, self.cutter, self.sent.append)
        self.rev = 0

    async def attach(self) -> None:
        candidate = Candidate("id", "web", self._cgroup.open, Labels("shop"))
        await self.roster.attach([candidate])

    @property
    def tracked(self) -> Tracked:
        (tracked,) = self.roster.tracked.values()
        return tracked

    @property
    def memory(self) -> TrackedMemory:
        assert self.tracked.memory is not None
        return self.tracked.memory

    async def ticks(self) -> None:
        """Every 100 ms, and how late at worst."""
        due = time.monotonic()
        while True:
            due += 0.1
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.late_s = max(self.late_s, time.monotonic() - due)
            self.keeper.tick()

    def order(self, max_bytes: int, margin_bytes: int = 0, headroom_bytes: int = 0) -> None:
        self.rev += 1
        order = MemoryOrder(self.tracked.key, self.rev, max_bytes, margin_bytes, headroom_bytes)
        self.keeper.obey(SetMemory([order]))

    def grant(self) -> bool:
        """Answer the last need with enough for a while; always true."""
        if self.needs and self.memory.plan.asked:
            need = self.needs[-1]
            self.order(need.limit_bytes + 16 * MIB + need.growth // 20)
        return True

    def deny(self, need: MemoryNeed) -> None:
        self.keeper.deny(DenyMemory(need.key, need.serial, "the pool is empty"))

    async def limit_to(self, max_bytes: int, margin_bytes: int = 0) -> MemoryApplied:
        self.order(max_bytes, margin_bytes)
        return await self.acknowledged()

    async def acknowledged(self) -> MemoryApplied:
        await until(lambda: any(ack.rev == self.rev for m in self.acks for ack in m.acks), "acknowledged")
        return self.acks[-1]

    @property
    def acks(self) -> list[MemoryApplied]:
        return [m for m in self.sent if isinstance(m, MemoryApplied)]

    @property
    def needs(self) -> list[MemoryNeed]:
        return [m for m in self.sent if isinstance(m, MemoryNeed)]

    @property
    def drawn(self) -> list[MemoryDrawn]:
        return [m for m in self.sent if isinstance(m, MemoryDrawn)]

    @property
    def kills(self) -> list[OomKilled]:
        return [m for m in self.sent if isinstance(m, OomKilled)]


@contextlib.asynccontextmanager
async def running(
    cgroup: KernelCgroup, folder: Path, *, linked: bool = True, ticking: bool = True
) -> AsyncIterator[Agent]:
    agent = Agent(cgroup, folder)
    await agent.attach()
    agent.keeper.start()
    agent.keeper.link(linked)
    ticks = asyncio.create_task(agent.ticks()) if ticking else None
    try:
        yield agent
    finally:
        if ticks is not None:
            ticks.cancel()
        agent.keeper.close()
        await agent.cutter.close()
        agent.roster.close()


def run(main: Awaitable[None]) -> None:
    async def body() -> None:
        await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())


async def until(met: Callable[[], object], what: Callable[[], str] | str, timeout_s: float = 5.0) -> float:
    """Seconds until it was; the loop goes on meanwhile."""
    start = time.monotonic()
    while not met():
        if time.monotonic() - start > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        await asyncio.sleep(0.002)
    return time.monotonic() - start


def group_of(cgroup: KernelCgroup) -> MemoryGroup:
    group = cgroup.open().memory_group
    assert group is not None
    return group


def memory_directory(cgroup: KernelCgroup) -> Path:
    return Path(cgroup.hierarchy.mounts.get("memory", str(cgroup.hierarchy.unified)), cgroup.path)


def limit_file(cgroup: KernelCgroup) -> Path:
    directory = memory_directory(cgroup)
    v2 = directory / "memory.max"
    return v2 if v2.exists() else directory / "memory.limit_in_bytes"


def armed(cgroup: KernelCgroup) -> bool:
    control = memory_directory(cgroup) / "memory.oom_control"
    return control.exists() and "oom_kill_disable 1" in control.read_text()


async def ate(eater: Eater, size: int, timeout_s: float = 5.0) -> float:
    return await until(
        lambda: eater.has >= size, lambda: f"{size >> 20} MiB eaten, {eater.has >> 20} so far", timeout_s
    )


def cat(cgroup: KernelCgroup, path: Path) -> None:
    """Read a file from in there, so that its pages are charged to that cgroup."""
    assert cgroup.start(sys.executable, "-S", "-c", READER, str(path)).wait(60) == 0


def cached_file(folder: Path, size: int) -> Iterator[Path]:
    """A file of which nothing is in the cache."""
    path = folder / "big"
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(4096) * 256)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield path
    path.unlink()
