"""Notice of use on its way to the limit, from the kernel (v1) and between two ticks."""

import asyncio
import os
import select
from pathlib import Path

import pytest

from escra_agent.memorymarks import set_mark
from tests.kernel_cgroups import KernelCgroup
from tests.memory_agent import MIB, Eater, ate, memory_directory, run, running, until

pytestmark = pytest.mark.kernel


def skip_without_marks(cgroup: KernelCgroup) -> None:
    if not (memory_directory(cgroup) / "cgroup.event_control").exists():
        pytest.skip("cgroup v2 has no such thing")


def test_the_kernel_tells_when_use_passes_a_mark(cgroup: KernelCgroup, tmp_path: Path) -> None:
    skip_without_marks(cgroup)
    mark = set_mark(str(memory_directory(cgroup)), 32 * MIB)
    poll = select.poll()
    poll.register(mark, select.POLLIN)
    try:
        eater = Eater(cgroup, tmp_path)
        eater.want(16 * MIB)
        asyncio.run(ate(eater, 16 * MIB))
        assert poll.poll(200) == []
        eater.want(40 * MIB)
        assert poll.poll(5000) == [(mark, select.POLLIN)]
    finally:
        os.close(mark)


def test_no_mark_in_a_cgroup_that_is_gone(cgroup: KernelCgroup) -> None:
    directory = memory_directory(cgroup)
    cgroup.remove()
    with pytest.raises(FileNotFoundError):
        set_mark(str(directory), 32 * MIB)


def test_a_burst_between_two_ticks_is_seen(cgroup: KernelCgroup, tmp_path: Path) -> None:
    """The agent's tick does not come; only the kernel speaks."""
    skip_without_marks(cgroup)

    async def scene() -> None:
        eater = Eater(cgroup, tmp_path / "eater")
        async with running(cgroup, tmp_path, ticking=False) as agent:
            agent.keeper.tick()
            await agent.limit_to(64 * MIB, 8 * MIB)
            agent.keeper.tick()
            await asyncio.sleep(1.2)  # the mark is set aside, and the growth of before is over
            eater.want(52 * MIB)  # and Python itself; it comes near the limit, and does not meet it
            await until(lambda: agent.needs, "it asked")
            assert not agent.needs[0].paused
            assert agent.needs[0].needed_bytes < 64 * MIB

    run(scene())
