"""Containers in which nothing moves are hardly looked at, and nothing is missed for it."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from escra_agent.keeper import Keeper
from escra_agent.labels import Labels
from escra_agent.memorycut import Cutter
from escra_agent.memorykeeper import MemoryKeeper
from escra_agent.notices import WriteNotices
from escra_agent.originals import OriginalsStore
from escra_agent.resting import Resting
from escra_agent.roster import Roster
from escra_agent.tracked import Candidate, Tracked
from escra_common.messages import CpuOrder, MemoryOrder, Message, Samples, SetLimits, SetMemory
from tests.kernel_cgroups import KernelCgroup, limit
from tests.memory_agent import MIB, limit_file, run

pytestmark = pytest.mark.kernel

ELSEWHERE = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/cgroup
mount -t {kind} none /mnt/cgroup
echo {text} > /mnt/cgroup/{path}
"""


class Ticking:
    """An agent's work without its link and its timer: ``tick`` is one tick."""

    def __init__(self, cgroup: KernelCgroup, folder: Path) -> None:
        self.sent: list[Message] = []
        store = OriginalsStore(folder / "originals.json")
        store.load()
        self.cutter = Cutter()
        self.roster = Roster(cgroup.hierarchy, store, self.sent.append, self.cutter)
        self.keeper = Keeper(self.roster, self.sent.append)
        self.memory = MemoryKeeper(self.roster, self.cutter, self.sent.append)
        self.resting = Resting(self.roster.tracked)
        self._due = time.monotonic()

    @property
    def tracked(self) -> Tracked:
        (tracked,) = self.roster.tracked.values()
        return tracked

    @property
    def samples(self) -> list[Samples]:
        return [message for message in self.sent if isinstance(message, Samples)]

    async def tick(self) -> None:
        self._due = max(time.monotonic(), self._due + 0.1)
        await asyncio.sleep(self._due - time.monotonic())
        self.resting.wake()
        self.memory.tick()
        self.keeper.tick()
        self.resting.settle()

    async def until_it_rests(self) -> None:
        end = time.monotonic() + 10
        while not self.tracked.resting:
            assert time.monotonic() < end, self.tracked
            await self.tick()

    def manage(self, milli: int, max_bytes: int) -> None:
        key, rev = self.tracked.key, self.tracked.plan.rev + 1
        self.keeper.obey(SetLimits([CpuOrder(key, rev, milli)]))
        self.memory.obey(SetMemory([MemoryOrder(key, rev, max_bytes)]))


@contextlib.asynccontextmanager
async def ticking(cgroup: KernelCgroup, folder: Path) -> AsyncIterator[Ticking]:
    cgroup.start("/bin/sleep", "1000")
    agent = Ticking(cgroup, folder)
    await agent.roster.attach([Candidate("id", "web", cgroup.open, Labels("shop"))])
    try:
        yield agent
    finally:
        agent.resting.close()
        agent.roster.close()
        await agent.cutter.close()


def test_a_write_is_noticed_from_wherever_it_comes(cgroup: KernelCgroup) -> None:
    """Through another mount, in another cgroup namespace, it is the same superblock."""
    opened, notices = cgroup.open(), WriteNotices()
    assert [notices.watch(directory) for directory in opened.directories].count(None) == 0
    assert notices.written() == set()
    opened.read(fresh=True)
    assert notices.written() == set(), "reading is no writing"
    opened.write_limit(limit(0.5))
    assert notices.written() == {1}
    v1 = "cpu" in cgroup.hierarchy.mounts
    kind = "cgroup -o cpu" if v1 else "cgroup2"
    path, text = (f"{cgroup.path}/cpu.cfs_quota_us", "40000") if v1 else (f"{cgroup.path}/cpu.max", "40000")
    script = ELSEWHERE.format(kind=kind, path=path, text=text)
    subprocess.run(["unshare", "--cgroup", "--mount", "sh", "-c", script], check=True)
    assert opened.read_limit() == limit(0.4)
    assert notices.written() == {1}
    opened.close()
    notices.close()


def test_a_foreign_limit_is_repaired_in_the_next_tick(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        async with ticking(cgroup, tmp_path) as agent:
            await agent.until_it_rests()
            agent.manage(500, 64 * MIB)
            await agent.until_it_rests()
            other = cgroup.open()
            assert other.read_limit() == limit(0.5)
            other.write_limit(limit(0.9))
            await agent.tick()
            assert other.read_limit() == limit(0.5)
            assert agent.keeper.drift_repairs == 1

            await agent.until_it_rests()
            file = limit_file(cgroup)
            file.write_text(str(48 * MIB))
            await agent.tick()
            assert int(file.read_text()) == 64 * MIB
            assert agent.memory.drift_repairs == 1
            await agent.until_it_rests()
            assert agent.keeper.drift_repairs == 1, "what we write ourselves is no drift"
            other.close()

    run(scene())


def test_one_that_works_is_reported_at_once_and_undiluted(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        async with ticking(cgroup, tmp_path) as agent:
            agent.manage(500, 64 * MIB)
            await agent.until_it_rests()
            for _ in range(5):
                await agent.tick()
            assert agent.tracked.resting
            agent.sent.clear()
            cgroup.busy()
            await agent.tick()
            assert not agent.tracked.resting
            (samples,) = agent.samples
            before, after = samples.samples
            assert before.usage_usec < after.usage_usec
            # Five ticks of rest are not part of it.  A busy machine may be late, but not by that much.
            assert after.time_usec - before.time_usec < 350_000
            cgroup.stop()

    run(scene())


def test_one_that_ends_is_found_to_be_gone(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        async with ticking(cgroup, tmp_path) as agent:
            await agent.until_it_rests()
            cgroup.remove()
            await agent.tick()
            assert agent.tracked in agent.keeper.gone + agent.memory.gone

    run(scene())


def test_without_notices_nobody_rests(
    cgroup: KernelCgroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with ticking(cgroup, tmp_path) as agent:
            monkeypatch.setattr(WriteNotices, "watch", lambda self, directory: None)
            agent.manage(500, 64 * MIB)
            for _ in range(5):
                await agent.tick()
            assert not agent.tracked.resting
            other = cgroup.open()
            other.write_limit(limit(0.9))
            await agent.tick()
            assert other.read_limit() == limit(0.5)
            other.close()

    run(scene())


def test_a_sample_belongs_to_the_last_order_that_was_written(cgroup: KernelCgroup, tmp_path: Path) -> None:
    """What is seen while an aligned order waits for its boundary is due to the limit before it."""

    async def scene() -> None:
        async with ticking(cgroup, tmp_path) as agent:
            agent.manage(300, 64 * MIB)
            cgroup.start("/bin/sh", "-c", "while :; do :; done")
            for _ in range(4):
                await agent.tick()
            agent.keeper.obey(SetLimits([CpuOrder(agent.tracked.key, 2, 200, 0, aligned=True)]))
            agent.sent.clear()
            await agent.tick()
            assert {sample.rev for batch in agent.samples for sample in batch.samples} == {1}
            end = time.monotonic() + 2
            while agent.keeper.poll_boundaries() is not None:
                assert time.monotonic() < end
                await asyncio.sleep(0.002)
            agent.sent.clear()
            await agent.tick()
            assert {sample.rev for batch in agent.samples for sample in batch.samples} == {2}

    run(scene())
