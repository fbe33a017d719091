"""Memory limits and their notices on the real kernel, on either cgroup version."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from escra_agent.errors import CgroupGone, LimitRejected
from escra_agent.inspection import inspect
from escra_agent.labels import Labels
from escra_agent.memorycut import above
from escra_agent.tracked import Candidate
from escra_common.messages import (
    MemoryLimit,
    OomKilled,
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
    run,
    running,
    until,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
def file_of_1_gib(tmp_path: Path) -> Iterator[Path]:
    yield from cached_file(tmp_path, 1 << 30)


def test_limits_go_up_and_down_with_their_swap(cgroup: KernelCgroup) -> None:
    group = group_of(cgroup)
    found = group.read_limit()
    assert found.max_bytes is None
    for size in (256 * MIB, 128 * MIB, 192 * MIB, 64 * MIB):
        high = size - 4 * MIB if group.banded else None
        before = group.read_limit()
        wanted = MemoryLimit(size, high, size + 32 * MIB)
        write = group.lower_limit if above(before, wanted) else group.raise_limit
        in_force = write(wanted)
        assert (in_force.max_bytes, in_force.high_bytes) == (size, high)
        assert in_force.swap_bytes in (None, size + 32 * MIB), "None: no swap accounting here"
        assert group.read_limit() == in_force
        written = group.writes
        group.raise_limit(in_force)
        assert group.writes == written, "what is in force is not written again"
    assert group.raise_limit(found) == found
    group.close()


def test_a_limit_below_what_is_in_use_is_refused_and_the_old_one_stays(
    cgroup: KernelCgroup, tmp_path: Path
) -> None:
    group, eater = group_of(cgroup), Eater(cgroup, tmp_path)
    eater.want(64 * MIB)
    asyncio.run(ate(eater, 64 * MIB))
    before = group.lower_limit(MemoryLimit(256 * MIB, 250 * MIB if group.banded else None))
    with pytest.raises(LimitRejected, match="more is in use than that"):
        group.lower_limit(MemoryLimit(32 * MIB, 30 * MIB if group.banded else None))
    assert group.read_limit() == before
    assert group.needed_bytes() > 64 * MIB
    time.sleep(0.2)
    assert eater.process.poll() is None
    group.close()


def test_a_removed_cgroup_is_gone_for_every_operation(cgroup: KernelCgroup) -> None:
    group = group_of(cgroup)
    cgroup.remove()
    limit = MemoryLimit(MIB)
    for operation in (group.pulse, group.read, group.read_limit, group.cache_bytes, group.again):
        with pytest.raises(CgroupGone, match=cgroup.path):
            operation()
    with pytest.raises(CgroupGone, match=cgroup.path):
        group.raise_limit(limit)
    group.close()


def test_the_tightest_limit_above_is_the_cap(cgroup: KernelCgroup) -> None:
    leaf = group_of(cgroup.child("middle").child("leaf"))
    assert leaf.cap_bytes() is None
    group_of(cgroup).lower_limit(MemoryLimit(96 * MIB))
    assert leaf.cap_bytes() == 96 * MIB
    group_of(cgroup.children[0]).lower_limit(MemoryLimit(64 * MIB))
    assert leaf.cap_bytes() == 64 * MIB


def test_tasks_at_the_limit_go_on_after_each_raise(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            eater.want(400 * MIB)
            await until(lambda: agent.grant() and eater.has == 400 * MIB, "all of it", 20)
            assert eater.process.poll() is None
            assert not agent.kills
            assert {need.serial for need in agent.needs} == set(range(1, agent.needs[-1].serial + 1))
            assert len(agent.needs) > 4

    run(scene())


def test_one_that_grows_slowly_is_helped_before_it_meets_its_limit(
    cgroup: KernelCgroup, tmp_path: Path
) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            for size in range(8, 160, 2):
                eater.want(size * MIB)
                while eater.has < size * MIB:
                    agent.grant()
                    await asyncio.sleep(0.002)
                await asyncio.sleep(0.02)
            assert agent.needs
            assert not any(need.paused for need in agent.needs)
            assert agent.memory.group.read().max_events == 0

    run(scene())


def test_a_need_is_met_out_of_the_headroom_and_only_the_next_one_is_asked_for(
    cgroup: KernelCgroup, tmp_path: Path
) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            agent.order(64 * MIB, 8 * MIB, 64 * MIB)
            await agent.acknowledged()
            eater.want(100 * MIB)
            await ate(eater, 100 * MIB)
            (drawn,) = agent.drawn
            assert {need.limit_bytes for need in agent.needs} <= {128 * MIB}
            assert (drawn.rev, drawn.in_force.max_bytes) == (agent.rev, 128 * MIB)
            assert drawn.need.limit_bytes == 64 * MIB
            assert agent.memory.group.read_limit() == drawn.in_force
            assert 0 < drawn.answer_usec < 50_000
            eater.want(200 * MIB)
            await until(lambda: agent.needs, "a need")
            assert agent.needs[0].serial > drawn.need.serial
            await until(lambda: agent.grant() and eater.has == 200 * MIB, "all of it")
            assert not agent.kills
            assert len(agent.drawn) == 1

    run(scene())


def test_nobody_draws_on_what_a_later_order_or_the_loss_of_the_link_has_taken_back(
    cgroup: KernelCgroup, tmp_path: Path
) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            agent.order(64 * MIB, 8 * MIB, 64 * MIB)
            await agent.limit_to(64 * MIB, 8 * MIB)
            eater.want(100 * MIB)
            await until(lambda: agent.needs, "a need")
            assert not agent.drawn
            await agent.limit_to(128 * MIB, 8 * MIB)
            await ate(eater, 100 * MIB)
            await asyncio.sleep(1.5)  # it does not grow any more
            agent.order(128 * MIB, 8 * MIB, 128 * MIB)
            agent.keeper.link(False)
            eater.want(200 * MIB)
            await until(lambda: eater.process.poll() is not None, "killed")
            assert not agent.drawn

    run(scene())


def test_reading_a_file_is_no_need(cgroup: KernelCgroup, tmp_path: Path, file_of_1_gib: Path) -> None:
    async def scene() -> None:
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            await asyncio.to_thread(cat, cgroup, file_of_1_gib)
            reading = agent.memory.group.read()
            assert reading.max_events + reading.high_events > 0, "the cache has met its limit"
            assert reading.used_bytes > 40 * MIB
            assert agent.memory.group.needed_bytes() < 32 * MIB
            assert not agent.needs
            assert not agent.kills
            assert agent.late_s < 0.1

    run(scene())


def test_a_denied_container_is_killed_at_once(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            eater.want(200 * MIB)
            await until(lambda: agent.needs, "a need")

            def refuse() -> bool:
                agent.deny(agent.needs[-1])
                return eater.process.poll() is not None

            assert await until(refuse, "killed") < 1.0
            assert eater.process.returncode == -9
            await until(lambda: agent.kills, "reported")
            assert agent.kills == [OomKilled(agent.tracked.key, 1, "its own limit of 64.0MiB")]
            await until(lambda: armed(cgroup) or agent.memory.group.banded, "armed again")

    run(scene())


def test_no_answer_is_a_denial(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            eater.want(200 * MIB)
            banded = agent.memory.group.banded
            await until(lambda: any(need.paused or banded for need in agent.needs), "a need")
            waited_s = await until(lambda: eater.process.poll() is not None, "killed", 10)
            if not banded:  # v2 only slows tasks down
                assert 4 < waited_s < 7
            serials = [need.serial for need in agent.needs]
            assert len(serials) > len(set(serials)), "it was asked again"

    run(scene())


def test_without_a_link_nobody_waits(cgroup: KernelCgroup, tmp_path: Path) -> None:
    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path) as agent:
            await agent.limit_to(64 * MIB, 8 * MIB)
            eater.want(200 * MIB)
            await until(lambda: agent.needs, "a need")
            agent.keeper.link(False)
            assert not armed(cgroup)
            assert await until(lambda: eater.process.poll() is not None, "killed") < 1.0
            agent.keeper.link(True)
            await until(lambda: armed(cgroup) or agent.memory.group.banded, "armed again")

    run(scene())


def test_a_kill_at_a_limit_above_is_told_as_such(cgroup: KernelCgroup, tmp_path: Path) -> None:
    child = cgroup.child("web")

    async def scene() -> None:
        eater = Eater(child, tmp_path / "eater")
        async with running(child, tmp_path) as agent:
            await agent.limit_to(256 * MIB)
            group_of(cgroup).lower_limit(MemoryLimit(64 * MIB))
            eater.want(200 * MIB)
            await until(lambda: eater.process.poll() is not None, "killed")
            await until(lambda: agent.kills, "reported")
            assert agent.kills[0].cause == f"the limit of /{cgroup.path} above it"
            assert not agent.needs, "more of its own would not help"

    run(scene())


def test_what_was_made_inside_an_armed_cgroup_is_disarmed_with_it(cgroup: KernelCgroup) -> None:
    """On v1 it is born with the OOM killer off, and its tasks would wait at a limit of its own for ever."""
    group = group_of(cgroup)
    if group.banded:
        return
    group.arm()
    try:
        child = cgroup.child("inner")
        assert armed(child)
    finally:
        group.disarm()
    assert not armed(cgroup)
    assert not armed(child)
    group.close()


def test_who_is_let_go_while_tasks_wait_above_it_is_not_armed_again(
    cgroup: KernelCgroup, tmp_path: Path
) -> None:
    """On v1 all below a cgroup whose tasks wait say under_oom, with room of their own or without."""
    web, other, above = cgroup.child("web"), cgroup.child("other"), group_of(cgroup)
    if above.banded:
        return
    above.raise_limit(MemoryLimit(32 * MIB))
    above.arm()

    async def scene() -> None:
        eater = Eater(other, tmp_path / "eater")
        async with running(web, tmp_path) as agent:
            await agent.limit_to(16 * MIB)
            eater.want(200 * MIB)
            await until(lambda: agent.memory.pulse.overlooked, "tasks wait above it")
            assert armed(web)
            agent.memory.plan.let_go()
            await asyncio.sleep(0.35)
            assert not armed(web)

    try:
        run(scene())
    finally:
        above.disarm()
        above.close()


@pytest.mark.parametrize("release", ["5.8.18-generic", "4.19.0-27-amd64", "5.10.0-32-amd64", "6.1.0", "odd"])
def test_kernels_that_can_hang_at_memory_high_are_refused(
    cgroup: KernelCgroup, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    group = group_of(cgroup)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    refused = group.banded and not release.startswith(("5.10", "6"))
    assert ("5.9 or later" in group.problem()) == refused
    group.close()


def test_an_agent_that_is_told_to_leaves_memory_alone(cgroup: KernelCgroup, tmp_path: Path) -> None:
    opened = cgroup.open()
    candidate = Candidate("id", "web", cgroup.open, Labels("shop"))
    memory = inspect(candidate, opened, None, manage_memory=False).memory
    assert memory is not None
    assert "enabled = false" in memory.describe().problem
    opened.close()
