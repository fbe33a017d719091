"""A cgroup whose files cannot be read refuses its own orders, and the others get theirs."""

import asyncio
import time
from pathlib import Path

import pytest

from escra_agent.errors import LimitRejected
from escra_agent.hierarchy import Hierarchy
from escra_agent.keeper import Keeper
from escra_agent.labels import Labels
from escra_agent.memorycut import Cutter
from escra_agent.originals import OriginalsStore
from escra_agent.parts import Parts
from escra_agent.roster import Roster
from escra_agent.tracked import Candidate
from escra_common.messages import Applied, CpuLimit, CpuOrder, Message, Samples, SetLimits

FREE = "max 100000"
SHOP = Labels("shop")


def folder_like_a_cgroup(tree: Path, name: str) -> Path:
    folder = tree / name
    folder.mkdir()
    (folder / "cpu.max").write_text(FREE)
    (folder / "cpu.stat").write_text("usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
    return folder


def keeper_of(
    tree: Path, names: list[str], labels: Labels = SHOP, parts: Parts | None = None
) -> tuple[Keeper, Roster, list[Message]]:
    said: list[Message] = []
    hierarchy = Hierarchy("v2", {}, str(tree))
    roster = Roster(hierarchy, OriginalsStore(tree / "originals.json", "boot"), said.append, Cutter())
    candidates = [Candidate(n, n, lambda n=n: hierarchy.open(n), labels) for n in names]  # type: ignore[misc]
    asyncio.run(roster.attach(candidates))
    said.clear()
    return Keeper(roster, said.append, parts), roster, said


def test_an_order_for_a_cgroup_with_strange_files_is_refused_alone(tmp_path: Path) -> None:
    strange, sound = (folder_like_a_cgroup(tmp_path, name) for name in ("strange", "sound"))
    keeper, roster, said = keeper_of(tmp_path, ["strange", "sound"])
    (strange / "cpu.stat").write_text("nonsense")
    orders = [CpuOrder(folder.stat().st_ino, 7, 500, 0, True) for folder in (strange, sound)]
    keeper.obey(SetLimits(orders))
    (refusal,) = [ack for message in said if isinstance(message, Applied) for ack in message.acks]
    assert (refusal.key, refusal.rev, refusal.in_force) == (orders[0].key, 7, CpuLimit(None, 100_000))
    assert "no kernel is known to say" in refusal.error
    later(keeper)  # the other's waits for its period

    (sound / "cpu.stat").write_text("nonsense")
    said.clear()
    assert keeper.poll_boundaries() is None
    (refusal,) = [ack for message in said if isinstance(message, Applied) for ack in message.acks]
    assert refusal.key == orders[1].key
    assert (sound / "cpu.max").read_text() == FREE
    roster.close()


def later(keeper: Keeper) -> None:
    """When it is to be looked at again whether periods are over."""
    wait_s = keeper.poll_boundaries()
    assert wait_s is not None
    time.sleep(wait_s)


def stat(folder: Path, usage_usec: int, nr_periods: int) -> None:
    text = f"usage_usec {usage_usec}\nnr_periods {nr_periods}\nnr_throttled 0\nthrottled_usec 0\n"
    (folder / "cpu.stat").write_text(text)


def test_of_two_orders_that_come_together_the_later_one_is_carried_out(tmp_path: Path) -> None:
    """Else what is left of the period for the first would be acknowledged as the second."""
    folder = folder_like_a_cgroup(tmp_path, "one")
    keeper, roster, said = keeper_of(tmp_path, ["one"])
    key = folder.stat().st_ino
    keeper.obey(SetLimits([CpuOrder(key, 1, 500)]))
    for usage_usec, nr_periods in ((1_000, 6), (2_000, 7), (3_000, 7)):
        stat(folder, usage_usec, nr_periods)
        keeper.tick()
    said.clear()
    keeper.obey(SetLimits([CpuOrder(key, 2, 300, 0, True), CpuOrder(key, 3, 600, 0, True)]))
    acks = [ack for message in said if isinstance(message, Applied) for ack in message.acks]
    assert [(ack.rev, ack.in_force.quota_usec, ack.extra_usec) for ack in acks] == [(3, 60_000, 0)]
    assert (folder / "cpu.max").read_text() == "58000 100000", "2 ms are used"
    roster.close()


def test_with_many_to_look_at_the_turns_come_further_apart(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(50)]
    keys = [folder_like_a_cgroup(tmp_path, name).stat().st_ino for name in names]
    keeper, roster, _ = keeper_of(tmp_path, names)
    keeper.obey(SetLimits([CpuOrder(keys[0], 1, 500, 0, aligned=True)]))
    assert keeper.poll_boundaries() == pytest.approx(0.002, abs=0.001)
    keeper.obey(SetLimits([CpuOrder(key, 2, 500, 0, aligned=True) for key in keys]))
    assert keeper.poll_boundaries() == pytest.approx(0.005, abs=0.001)
    roster.close()


@pytest.mark.parametrize(("milli", "written"), [(850, "83000 100000"), (900, "50000 100000")])
def test_a_raise_to_nearly_its_own_ceiling_is_not_made_within_a_period(
    tmp_path: Path, milli: int, written: str
) -> None:
    folder = folder_like_a_cgroup(tmp_path, "one")
    keeper, roster, _ = keeper_of(tmp_path, ["one"], Labels("shop", cpu_max_milli=1000))
    key = folder.stat().st_ino
    keeper.obey(SetLimits([CpuOrder(key, 1, 500)]))
    for usage_usec, nr_periods in ((1_000, 6), (2_000, 7), (3_000, 7)):
        stat(folder, usage_usec, nr_periods)
        keeper.tick()
    keeper.obey(SetLimits([CpuOrder(key, 2, milli, 0, True)]))
    assert (folder / "cpu.max").read_text() == written
    assert keeper.poll_boundaries() is not None, "the whole of it waits for the boundary"
    roster.close()


def settled_at(
    tmp_path: Path, milli: int, headroom_milli: int, labels: Labels = SHOP
) -> tuple[Keeper, Roster, list[Message], Path]:
    """One container with that limit and headroom, 3 ms into a period that was seen to begin."""
    folder = folder_like_a_cgroup(tmp_path, "one")
    keeper, roster, said = keeper_of(tmp_path, ["one"], labels)
    keeper.obey(SetLimits([CpuOrder(folder.stat().st_ino, 1, milli, 0, False, headroom_milli)]))
    for usage_usec, nr_periods in ((1_000, 6), (2_000, 7), (3_000, 7)):
        stat(folder, usage_usec, nr_periods)
        keeper.tick()
    said.clear()
    return keeper, roster, said, folder


def alarm(keeper: Keeper, roster: Roster) -> bool:
    (tracked,) = roster.tracked.values()
    return keeper.alarm(tracked, tracked.cgroup.read())


def test_at_an_alarm_headroom_is_taken_at_once_and_told_before_what_it_was_for(tmp_path: Path) -> None:
    keeper, roster, said, folder = settled_at(tmp_path, 500, 200)
    stat(folder, 49_000, 7)
    assert alarm(keeper, roster)
    assert (folder / "cpu.max").read_text() == "22000 100000", "48 ms are used of 70"
    applied, samples = said
    assert isinstance(applied, Applied)
    assert isinstance(samples, Samples)
    (ack,), (sample,) = applied.acks, samples.samples
    assert (ack.rev, ack.in_force) == (2, CpuLimit(70_000, 100_000))
    assert (sample.rev, sample.dry) == (1, True)
    later(keeper)
    stat(folder, 52_000, 8)
    assert keeper.poll_boundaries() is None
    assert (folder / "cpu.max").read_text() == "70000 100000"
    said.clear()
    assert not alarm(keeper, roster), "there was no more of it"
    assert [type(message) for message in said] == [Samples]
    roster.close()


def test_an_order_for_the_same_limit_is_acknowledged_without_a_write(tmp_path: Path) -> None:
    """A write would hand out a fresh quota (K3)."""
    keeper, roster, said, folder = settled_at(tmp_path, 500, 0)
    (tracked,) = roster.tracked.values()
    writes = tracked.cgroup.writes
    keeper.obey(SetLimits([CpuOrder(tracked.key, 2, 500, 0, True, 100)]))
    assert tracked.cgroup.writes == writes
    (applied,) = said
    assert isinstance(applied, Applied)
    assert [(ack.rev, ack.in_force) for ack in applied.acks] == [(2, CpuLimit(50_000, 100_000))]
    assert keeper.poll_boundaries() is None
    stat(folder, 49_000, 7)
    assert alarm(keeper, roster), "and its headroom counts"
    roster.close()


def test_headroom_beyond_its_own_ceiling_is_none(tmp_path: Path) -> None:
    keeper, roster, said, folder = settled_at(tmp_path, 500, 200, Labels("shop", cpu_max_milli=690))
    stat(folder, 49_000, 7)
    assert not alarm(keeper, roster)
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert [type(message) for message in said] == [Samples], "the controller hears of it all the same"
    roster.close()


def test_who_has_no_controller_for_long_does_not_go_up_by_itself(tmp_path: Path) -> None:
    keeper, roster, _, folder = settled_at(tmp_path, 500, 200)
    (tracked,) = roster.tracked.values()
    stat(folder, 49_000, 7)
    keeper.lower(tracked, 500)
    assert not alarm(keeper, roster)
    assert (folder / "cpu.max").read_text() == "50000 100000"
    roster.close()


def test_with_an_order_that_failed_its_headroom_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller hears of the failure, and does not count it any more."""

    def refuse(limit: CpuLimit) -> CpuLimit:
        raise LimitRejected("the parent has a lower limit")

    keeper, roster, said, folder = settled_at(tmp_path, 500, 0)
    (tracked,) = roster.tracked.values()
    with monkeypatch.context() as patch:
        patch.setattr(tracked.cgroup, "write_limit", refuse)
        keeper.obey(SetLimits([CpuOrder(tracked.key, 4, 600, 0, False, 200)]))
    (applied,) = said
    assert isinstance(applied, Applied)
    assert "lower limit" in applied.acks[0].error
    stat(folder, 49_000, 7)
    assert not alarm(keeper, roster)
    assert (folder / "cpu.max").read_text() == "50000 100000"
    roster.close()


@pytest.mark.parametrize("period_ends", [True, False])
def test_an_agent_that_ends_leaves_whole_limits_behind(tmp_path: Path, period_ends: bool) -> None:
    """At the end of the period, if that comes: else the 48 ms would be handed out again."""
    keeper, roster, _, folder = settled_at(tmp_path, 500, 200)
    stat(folder, 49_000, 7)
    assert alarm(keeper, roster)
    assert (folder / "cpu.max").read_text() == "22000 100000", "48 ms are used of 70"

    async def end() -> None:
        ended = asyncio.create_task(keeper.finish())
        await asyncio.sleep(0.03)
        assert (folder / "cpu.max").read_text() == "22000 100000"
        if period_ends:
            stat(folder, 50_000, 8)
        await ended

    asyncio.run(end())
    assert (folder / "cpu.max").read_text() == "70000 100000"
    roster.close()
