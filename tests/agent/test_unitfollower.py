"""The files beside units follow, on a real file system."""

import asyncio
import os
from pathlib import Path
from typing import cast

import pytest

from escra_agent import unitfollower
from escra_agent.cgroupfs import Cgroup
from escra_agent.counters import Counters
from escra_agent.labels import Labels
from escra_agent.planner import Plan
from escra_agent.tracked import Candidate, Tracked
from escra_agent.unitfiles import NAME, UnitFiles
from escra_agent.unitfollower import UnitFollower, remove_all
from escra_common.messages import CpuLimit

UNIT = "docker-1.scope"
NONE = CpuLimit(None, 100_000)


class NoCgroup:
    """Where a container is, without being there."""

    def __init__(self, key: int, path: str) -> None:
        self.key = key
        self.path = path


def container(key: int, path: str, milli: int | None) -> Tracked:
    cgroup = cast("Cgroup", NoCgroup(key, path))
    plan = Plan(None if milli is None else CpuLimit(milli * 100, 100_000))
    candidate = Candidate("id", "web", lambda: cgroup, Labels("shop"))
    return Tracked(candidate, cgroup, NONE, Counters(0, 0, 0, 0, 0, NONE), plan, None, False, None)


def file_of(folder: Path, unit: str = UNIT) -> Path:
    return folder / f"{unit}.d" / NAME


async def settled(follower: UnitFollower, *, claimed: bool = True) -> None:
    follower.tick(claimed=claimed)
    await follower.flush()


def test_a_file_comes_and_goes_with_the_management(tmp_path: Path) -> None:
    async def scene() -> None:
        tracked = {1: container(1, f"/system.slice/{UNIT}", None), 2: container(2, "/docker/1", 500)}
        follower = UnitFollower(tracked, UnitFiles(tmp_path))
        await settled(follower)
        assert os.listdir(tmp_path) == []
        tracked[1].plan.wanted = CpuLimit(47_300, 100_000)
        await settled(follower)
        assert "CPUQuota=47.30%" in file_of(tmp_path).read_text()
        assert [path.name for path in file_of(tmp_path).parent.iterdir()] == [NAME]
        assert file_of(tmp_path).stat().st_mode & 0o777 == 0o644
        del tracked[1]
        await settled(follower)
        assert os.listdir(tmp_path) == []
        await follower.close(remove=False)

    asyncio.run(scene())


def test_what_an_earlier_agent_left_goes_once_all_containers_are_known(tmp_path: Path) -> None:
    async def scene() -> None:
        UnitFiles(tmp_path).write("old.service", "whatever")
        (tmp_path / "old.service.d" / "theirs.conf").touch()
        UnitFiles(tmp_path).write(UNIT, "whatever")
        follower = UnitFollower({1: container(1, f"/system.slice/{UNIT}", 500)}, UnitFiles(tmp_path))
        follower.start()
        await settled(follower, claimed=False)
        assert file_of(tmp_path, "old.service").exists()
        await settled(follower)
        assert [path.name for path in (tmp_path / "old.service.d").iterdir()] == ["theirs.conf"]
        assert "CPUQuota=50.00%" in file_of(tmp_path).read_text()
        await follower.close(remove=True)
        assert not file_of(tmp_path).exists()

    asyncio.run(scene())


def test_a_failure_is_logged_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(unitfollower, "AGAIN_S", 0.0)

    async def scene() -> None:
        follower = UnitFollower({1: container(1, f"/system.slice/{UNIT}", 500)}, UnitFiles(tmp_path))
        (tmp_path / f"{UNIT}.d").touch()
        for _ in range(3):
            await settled(follower)
        assert capsys.readouterr().out.count("systemd units do not follow") == 1
        (tmp_path / f"{UNIT}.d").unlink()
        await settled(follower)
        assert file_of(tmp_path).exists()
        await follower.close(remove=False)
        assert file_of(tmp_path).exists()

    asyncio.run(scene())


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_happens_without_systemd_or_when_turned_off(tmp_path: Path, enabled: bool) -> None:
    async def scene() -> None:
        folder = tmp_path / "absent" if enabled else tmp_path
        follower = UnitFollower(
            {1: container(1, f"/system.slice/{UNIT}", 500)}, UnitFiles(folder), enabled=enabled
        )
        follower.start()
        await settled(follower)
        follower.look([1])
        await follower.close(remove=True)
        assert os.listdir(tmp_path) == []

    asyncio.run(scene())


def test_restore_removes_them_all(tmp_path: Path) -> None:
    for unit in ("a.service", UNIT):
        UnitFiles(tmp_path).write(unit, "whatever")
    assert remove_all(UnitFiles(tmp_path)) == 2
    assert os.listdir(tmp_path) == []
    assert remove_all(UnitFiles(tmp_path / "absent")) == 0
