"""What a controller makes of its state directory, and of what agents say; no sockets."""

import asyncio
from pathlib import Path

import pytest

from escra_common.errors import ConfigError
from escra_common.messages import Hello
from escra_common.session import hello
from escra_controller.bounds import ALL_APPS, EVERYTHING
from escra_controller.leadership import Leadership
from escra_controller.state import Refused


def agent(host: str, epoch: int = 0, leader: str = "") -> Hello:
    return hello("agent", host, epoch=epoch, leader=leader)


def begun(directory: Path, *, standby: bool = False) -> Leadership:
    leadership = Leadership(directory, "ctl", standby=standby)
    assert leadership.begin()
    return leadership


def test_a_second_start_remembers_and_a_damaged_store_does_not(tmp_path: Path) -> None:
    async def scene() -> None:
        first = begun(tmp_path)
        assert (first.role, first.remembers, first.lost) == ("leader", False, "")
        first.close()
        second = begun(tmp_path)
        assert second.remembers
        second.close()
        (tmp_path / "controller.db").write_bytes(b"nonsense" * 1000)
        third = begun(tmp_path)
        assert third.role == "leader"
        assert third.lost
        assert not third.remembers
        third.met(agent("h1", epoch=4, leader="ctl"))
        assert third.epoch == 4, "its own, from before"
        third.met(agent("h2", epoch=9, leader="elsewhere"))
        assert third.epoch == 4
        assert third.problems() == ["agent h2 follows elsewhere (epoch 9)"]
        third.close()
        fourth = begun(tmp_path)
        assert fourth.epoch == 4
        fourth.close()

    asyncio.run(scene())


def test_a_standby_is_promoted_above_all_that_it_heard_of_and_stays_so(tmp_path: Path) -> None:
    async def scene() -> None:
        standby = begun(tmp_path, standby=True)
        assert standby.role == "standby"
        standby.met(agent("h1", epoch=6, leader="old"))
        standby.promote(["h2"])
        assert standby.role == "standby"  # until that is on disk
        await standby.lead()
        assert (standby.role, standby.epoch) == ("leader", 7)
        with pytest.raises(Refused, match="leads already, with epoch 7"):
            standby.promote([])
        assert not standby.remembers
        assert standby.bounds == {("h1", ALL_APPS): EVERYTHING, ("h2", ALL_APPS): EVERYTHING}
        standby.close()
        again = begun(tmp_path, standby=True)
        assert (again.role, again.epoch) == ("leader", 7)
        assert set(again.bounds) == {("h1", ALL_APPS), ("h2", ALL_APPS)}
        again.close()

    asyncio.run(scene())


def test_a_promoted_standby_that_lost_its_memory_is_told_by_its_agents(tmp_path: Path) -> None:
    async def scene() -> None:
        promoted = begun(tmp_path, standby=True)
        promoted.promote(["h1"])
        await promoted.lead()
        promoted.close()
        (tmp_path / "controller.db").write_bytes(b"nonsense" * 1000)
        again = begun(tmp_path, standby=True)
        assert (again.role, bool(again.lost)) == ("standby", True)
        again.met(agent("h2", epoch=3, leader="elsewhere"))
        assert again.role == "standby"
        again.met(agent("h1", epoch=7, leader="ctl"))
        await asyncio.wait_for(again.lead(), 5)
        assert (again.role, again.epoch) == ("leader", 7)
        again.close()

    asyncio.run(scene())


def test_one_leads_and_the_other_waits(tmp_path: Path) -> None:
    async def scene() -> None:
        first = begun(tmp_path)
        second = Leadership(tmp_path, "ctl", standby=False)
        assert not second.begin()
        assert second.role == "waiting"
        with pytest.raises(Refused, match="leads with the same state directory"):
            second.promote([])
        first.close()
        assert second.begin()
        second.close()

    asyncio.run(scene())


def test_a_state_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scene() -> None:
        with pytest.raises(ConfigError, match="the state directory cannot be used"):
            Leadership(tmp_path / "file" / "state", "ctl", standby=False).begin()

    asyncio.run(scene())
