"""A cgroup whose files cannot be read refuses its own orders, and the others get theirs."""

import asyncio
from pathlib import Path

import pytest

from escra_agent.hierarchy import Hierarchy
from escra_agent.keeper import Keeper
from escra_agent.labels import Labels
from escra_agent.memorycut import Cutter
from escra_agent.originals import OriginalsStore
from escra_agent.roster import Roster
from escra_agent.tracked import Candidate
from escra_common.messages import Applied, CpuLimit, CpuOrder, Message, SetLimits

FREE = "max 100000"
SHOP = Labels("shop")


def folder_like_a_cgroup(tree: Path, name: str) -> Path:
    folder = tree / name
    folder.mkdir()
    (folder / "cpu.max").write_text(FREE)
    (folder / "cpu.stat").write_text("usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
    return folder


def keeper_of(tree: Path, names: list[str], labels: Labels = SHOP) -> tuple[Keeper, Roster, list[Message]]:
    said: list[Message] = []
    hierarchy = Hierarchy("v2", {}, str(tree))
    roster = Roster(hierarchy, OriginalsStore(tree / "originals.json", "boot"), said.append, Cutter())
    candidates = [Candidate(n, n, lambda n=n: hierarchy.open(n), labels) for n in names]  # type: ignore[misc]
    asyncio.run(roster.attach(candidates))
    said.clear()
    return Keeper(roster, said.append), roster, said


def test_an_order_for_a_cgroup_with_strange_files_is_refused_alone(tmp_path: Path) -> None:
    strange, sound = (folder_like_a_cgroup(tmp_path, name) for name in ("strange", "sound"))
    keeper, roster, said = keeper_of(tmp_path, ["strange", "sound"])
    (strange / "cpu.stat").write_text("nonsense")
    orders = [CpuOrder(folder.stat().st_ino, 7, 500, 0, True) for folder in (strange, sound)]
    keeper.obey(SetLimits(orders))
    (refusal,) = [ack for message in said if isinstance(message, Applied) for ack in message.acks]
    assert (refusal.key, refusal.rev, refusal.in_force) == (orders[0].key, 7, CpuLimit(None, 100_000))
    assert "no kernel is known to say" in refusal.error
    assert keeper.poll_boundaries()  # the other's waits for its period

    (sound / "cpu.stat").write_text("nonsense")
    said.clear()
    assert not keeper.poll_boundaries()
    (refusal,) = [ack for message in said if isinstance(message, Applied) for ack in message.acks]
    assert refusal.key == orders[1].key
    assert (sound / "cpu.max").read_text() == FREE
    roster.close()


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
    assert keeper.poll_boundaries(), "the whole of it waits for the boundary"
    roster.close()
