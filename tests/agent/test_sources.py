"""Cgroups that the configuration lists are taken in, and those that it lists no more stay away."""

import asyncio
import contextlib
import time
from pathlib import Path

from escra_agent.config import CgroupConfig
from escra_agent.hierarchy import Hierarchy
from escra_agent.memorycut import Cutter
from escra_agent.originals import Original, OriginalsStore
from escra_agent.roster import Roster
from escra_agent.sources import SCAN_S, CgroupSource
from escra_common.messages import Appeared, Gone, Message
from escra_common.units import Cpu
from tests.agent.test_keeper import folder_like_a_cgroup

WEB = CgroupConfig("web", "shop")


class SlowStore(OriginalsStore):
    """On a disk that takes longer than the time between two scans."""

    def remember(self, *originals: Original) -> None:
        time.sleep(2 * SCAN_S)
        super().remember(*originals)

    def forget(self, *keys: int) -> None:
        time.sleep(2 * SCAN_S)
        super().forget(*keys)


class Place:
    def __init__(self, tmp_path: Path) -> None:
        folder_like_a_cgroup(tmp_path, "web")
        hierarchy = Hierarchy("v2", {}, str(tmp_path))
        self.store = SlowStore(tmp_path / "originals.json", "boot")
        self.said: list[Message] = []
        self.roster = Roster(hierarchy, self.store, self.said.append, Cutter())
        self.source = CgroupSource(self.roster, hierarchy)

    async def take_in(self) -> None:
        """A new cgroup without memory files is waited for once, as they may be on their way."""
        await self.source.configure([WEB])
        await self.source.scan()

    @property
    def names(self) -> list[str]:
        return [tracked.candidate.name for tracked in self.roster.tracked.values()]


def test_who_is_listed_no_more_stays_away_however_long_giving_back_takes(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def story() -> None:
        await place.take_in()
        assert place.names == ["web"]
        scans = asyncio.create_task(place.source.run())
        await place.source.configure([])
        await asyncio.sleep(4 * SCAN_S)
        scans.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await scans

    asyncio.run(story())
    assert place.names == []
    assert place.store.all() == []
    assert [type(message) for message in place.said] == [Appeared, Gone]


def test_who_is_being_taken_in_when_the_list_changes_is_let_go(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def story() -> None:
        taking_in = asyncio.create_task(place.take_in())
        await asyncio.sleep(SCAN_S)
        assert place.names == []
        await place.source.configure([])
        await taking_in

    asyncio.run(story())
    assert place.names == []
    assert [type(message) for message in place.said] == [Appeared, Gone]


def test_who_is_listed_otherwise_is_taken_in_anew(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def story() -> None:
        await place.take_in()
        await place.source.configure([CgroupConfig("web", "shop", cpu_max=Cpu(2000))])
        await place.source.scan()

    asyncio.run(story())
    assert place.names == ["web"]
    assert [type(message) for message in place.said] == [Appeared, Gone, Appeared]
    (last,) = [message for message in place.said[-1:] if isinstance(message, Appeared)]
    assert last.container.cpu_max_milli == 2000
    place.roster.close()
