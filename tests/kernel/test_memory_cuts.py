"""Memory limits that come down, and those that others write, on the real kernel."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escra_agent.originals import restore_all
from escra_common.messages import (
    MemoryLimit,
)
from tests.kernel_cgroups import KernelCgroup
from tests.memory_agent import (
    MIB,
    Eater,
    armed,
    ate,
    cached_file,
    cat,
    group_of,
    limit_file,
    memory_directory,
    run,
    running,
    until,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
def file_of_1_gib(tmp_path: Path) -> Iterator[Path]:
    yield from cached_file(tmp_path, 1 << 30)


def test_a_cut_of_much_cache_delays_nothing(
    cgroup: KernelCgroup, tmp_path: Path, file_of_1_gib: Path
) -> None:
    async def scene() -> None:
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(2 << 30)
            await asyncio.to_thread(cat, cgroup, file_of_1_gib)
            assert agent.memory.group.read().used_bytes > 900 * MIB
            agent.late_s = 0.0
            start = time.monotonic()
            (ack,) = (await agent.limit_to(64 * MIB, 8 * MIB)).acks
            print(f"cut of 1 GiB of cache: {time.monotonic() - start:.3f} s, ticks late {agent.late_s:.4f} s")
            assert ack.in_force.max_bytes == 64 * MIB
            assert not ack.error
            assert agent.memory.group.read().used_bytes <= 64 * MIB
            await asyncio.sleep(0.2)
            assert agent.late_s < 0.03
            assert not agent.needs

    run(scene())


def test_a_cut_goes_as_far_as_it_harms_nobody(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        eater.want(100 * MIB)
        await ate(eater, 100 * MIB)
        async with running(cgroup, tmp_path) as agent:
            (first,) = (await agent.limit_to(32 * MIB, 16 * MIB)).acks
            assert first.in_force.max_bytes is None, "the first order is carried out wholly or not at all"
            assert agent.memory.plan.wanted is None
            await agent.limit_to(200 * MIB)
            (ack,) = (await agent.limit_to(32 * MIB, 16 * MIB)).acks
            assert ack.in_force.max_bytes is not None
            assert ack.needed_bytes > 100 * MIB
            assert 0 <= ack.in_force.max_bytes - ack.needed_bytes - 16 * MIB < 2 * MIB
            (again,) = (await agent.limit_to(16 * MIB, 32 * MIB)).acks
            assert again.in_force == ack.in_force, "not below the present limit: nothing was written"
            assert eater.process.poll() is None

    run(scene())


def test_a_raise_overtakes_a_cut(cgroup: KernelCgroup, tmp_path: Path, file_of_1_gib: Path) -> None:
    async def scene() -> None:
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(1 << 30)
            for delay_s in (0.0, 0.001, 0.002, 0.004, 0.008, 0.03):
                await asyncio.to_thread(cat, cgroup, file_of_1_gib)
                agent.order(64 * MIB)
                await asyncio.sleep(delay_s)
                (ack,) = (await agent.limit_to(1 << 30)).acks
                assert ack.in_force.max_bytes == 1 << 30
                await until(lambda: not agent.memory.cuts, "the cut ended")
                assert agent.memory.group.read_limit().max_bytes == 1 << 30
                assert agent.acks[-1].acks == [ack]
            assert agent.keeper.drift_repairs == 0

    run(scene())


def test_a_foreign_write_is_repaired_within_a_tick(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            in_force = agent.memory.group.read_limit()
            for text in ("100000000", "20000000"):
                limit_file(cgroup).write_text(text)
                await asyncio.sleep(0.2)
                assert agent.memory.group.read_limit() == in_force
            assert agent.keeper.drift_repairs == 2

    run(scene())


def test_what_was_taken_under_a_foreign_limit_is_owned_up_to(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            agent.sent.clear()
            limit_file(cgroup).write_text(str(512 * MIB))
            if agent.memory.group.banded:
                limit_file(cgroup).with_name("memory.high").write_text("max")
            eater.want(200 * MIB)
            while eater.has < 200 * MIB:
                time.sleep(0.002)  # noqa: ASYNC251  # the agent shall be too late
            await until(lambda: agent.acks, "told")
            (ack,) = agent.acks[0].acks
            assert ack.in_force.max_bytes is not None
            assert 200 * MIB < ack.in_force.max_bytes <= 512 * MIB
            assert eater.process.poll() is None

    run(scene())


def test_release_gives_the_original_back(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        group = group_of(cgroup)
        original = group.lower_limit(MemoryLimit(96 * MIB, None, 128 * MIB))
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(200 * MIB)
            assert agent.memory.describe().managed
            assert agent.memory.describe().original == original
            sums = agent.memory.group.read_limit()
            if not group.banded and sums.swap_bytes is not None:
                assert sums.swap_bytes - 200 * MIB == 32 * MIB, "the swap on top is what it was"
            assert await agent.roster.release(agent.tracked) == ""
            assert group.read_limit() == agent.memory.last.limit == original
            assert not armed(cgroup)
            await asyncio.sleep(0.25)
            assert group.read_limit() == original
            assert not agent.memory.describe().managed

    run(scene())


def test_an_original_that_no_longer_fits_kills_nobody(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        group = group_of(cgroup)
        original = group.lower_limit(MemoryLimit(64 * MIB))
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(400 * MIB)
            eater.want(200 * MIB)
            # There is room for it; in a slow virtual machine 30 MiB/s were seen.
            await ate(eater, 200 * MIB, 30.0)
            reason = await agent.roster.release(agent.tracked)
            assert "more is in use than that" in reason
            in_force = group.read_limit().max_bytes
            assert in_force is not None
            assert 200 * MIB < in_force < 240 * MIB, "as low as it goes"
            (outcome,) = restore_all(agent.store, cgroup.hierarchy)
            assert outcome.result == "failed"
            assert "more is in use than that" in outcome.text
            assert [entry.memory for entry in agent.store.all()] == [original]
            eater.process.kill()
            eater.process.wait()
            (outcome,) = restore_all(agent.store, cgroup.hierarchy)
            assert outcome.result == "restored"
            assert group.read_limit() == original

    run(scene())


def test_whose_owner_turned_the_oom_killer_off_is_left_alone(cgroup: KernelCgroup, tmp_path: Path) -> None:
    control = memory_directory(cgroup) / "memory.oom_control"
    if not control.exists():
        pytest.skip("cgroup v2 has no such thing")
    control.write_text("1")

    async def scene() -> None:
        async with running(cgroup, tmp_path) as agent:
            assert "turned off by its owner" in agent.memory.describe().problem
            agent.order(64 * MIB)
            await asyncio.sleep(0.25)
            assert agent.memory.group.read_limit().max_bytes is None
            assert not agent.acks
        assert armed(cgroup)

    run(scene())
