"""No limit without a record of the original: a full disk delays being managed, and ends nothing."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from escra_agent.hierarchy import Hierarchy
from escra_agent.labels import Labels
from escra_agent.memorycut import Cutter
from escra_agent.originals import OriginalsStore
from escra_agent.roster import Roster
from escra_agent.tracked import Candidate
from escra_common.messages import Appeared, CpuLimit, Message
from tests.agent.test_keeper import folder_like_a_cgroup

OWN = CpuLimit(50_000, 100_000)


class Place:
    """A roster with one container, whose record goes where a file is in the way of the directory."""

    def __init__(self, tmp_path: Path, *, full: bool) -> None:
        self.obstacle = tmp_path / "state"
        if full:
            self.obstacle.write_text("")
        folder_like_a_cgroup(tmp_path, "web")
        self.hierarchy = Hierarchy("v2", {}, str(tmp_path))
        self.store = OriginalsStore(self.obstacle / "originals.json", "boot")
        self.said: list[Message] = []
        self.roster = Roster(self.hierarchy, self.store, self.said.append, Cutter())

    def candidate(self, name: str = "web") -> Candidate:
        return Candidate("id", name, lambda: self.hierarchy.open("web"), Labels("shop"))

    def attach(self) -> None:
        asyncio.run(self.roster.attach([self.candidate()]))
        (self.tracked,) = self.roster.tracked.values()

    @property
    def told(self) -> Appeared:
        last = self.said[-1]
        assert isinstance(last, Appeared)
        return last


def test_who_could_not_be_recorded_is_managed_once_that_works(tmp_path: Path) -> None:
    place = Place(tmp_path, full=True)
    place.attach()
    assert "cannot record" in place.told.container.problem
    asyncio.run(place.roster.record_again())
    assert not place.tracked.ours
    place.obstacle.unlink()
    asyncio.run(place.roster.record_again())
    assert place.tracked.ours
    assert place.told.container.problem == ""
    assert place.store.get(place.tracked.key) is not None
    place.roster.close()


def test_another_name_is_no_record(tmp_path: Path) -> None:
    place = Place(tmp_path, full=True)
    place.attach()
    asyncio.run(place.roster.change(place.tracked, place.candidate("shop-web")))
    assert not place.tracked.ours
    place.roster.close()


def test_a_new_original_that_cannot_be_recorded_yet_ends_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, full=False)
    place.attach()
    (place.obstacle / "originals.json").unlink()
    place.obstacle.rmdir()
    place.obstacle.write_text("")
    asyncio.run(place.roster.change(place.tracked, place.candidate(), OWN))
    assert place.tracked.ours
    place.obstacle.unlink()
    asyncio.run(place.roster.record_again())
    recorded = msgspec.json.decode((place.obstacle / "originals.json").read_bytes())
    assert recorded[0]["limit"] == list(msgspec.to_builtins(OWN))
    place.roster.close()


def test_leftovers_that_cannot_be_struck_out_end_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, full=False)
    place.attach()
    place.roster.tracked.clear()
    assert place.roster.unclaimed
    (place.obstacle / "originals.json").unlink()
    place.obstacle.rmdir()
    place.obstacle.write_text("")
    asyncio.run(place.roster.restore_unclaimed())
    assert place.roster.unclaimed


@pytest.mark.parametrize("claimed", [True, False])
def test_what_was_limited_is_unclaimed_until_somebody_speaks_of_it(tmp_path: Path, claimed: bool) -> None:
    place = Place(tmp_path, full=False)
    place.attach()
    later = Roster(place.hierarchy, place.store, place.said.append, Cutter())
    if claimed:
        asyncio.run(later.attach([place.candidate()]))
    assert later.unclaimed != claimed
    for roster in (place.roster, later):
        roster.close()
