"""What a killed agent had written for the rest of a period only is made whole by the next."""

from pathlib import Path

import pytest

from escra_agent.hierarchy import Hierarchy
from escra_agent.originals import Original, OriginalsStore, complete_all
from escra_agent.parts import Part, Parts
from escra_common.messages import CpuLimit
from tests.agent.test_keeper import folder_like_a_cgroup
from tests.agent.test_lending import Place

WHOLE = CpuLimit(50_000, 100_000)


def part(left_usec: int, whole: CpuLimit = WHOLE) -> Part:
    return Part(CpuLimit(left_usec, whole.period_usec), whole)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "parts"


def begun(path: Path, boot: str = "boot") -> Parts:
    parts = Parts(path, boot)
    parts.begin()
    return parts


def test_what_is_noted_and_not_cleared_is_found(path: Path) -> None:
    parts = begun(path)
    for key in (1, 2, 3):
        parts.note(key, part(1_000 * key))
    parts.clear(2)
    parts.note(1, part(7_000))
    parts.note(4, part(9_000, CpuLimit(20_000, 50_000)))
    assert Parts(path, "boot").found() == {
        1: part(7_000),
        3: part(3_000),
        4: part(9_000, CpuLimit(20_000, 50_000)),
    }
    parts.close()
    assert path.stat().st_size == 64 + 3 * 32, "a line that is free is used again"
    begun(path).close()
    assert Parts(path, "boot").found() == {}


def test_of_another_boot_or_of_a_strange_file_nothing_is_found(path: Path) -> None:
    assert Parts(path, "boot").found() == {}
    parts = begun(path)
    parts.note(1, part(1_000))
    parts.note(2, part(2_000))
    parts.close()
    assert Parts(path, "another").found() == {}
    path.write_bytes(path.read_bytes()[:-5])
    assert Parts(path, "boot").found() == {1: part(1_000)}
    path.write_bytes(b"nonsense")
    assert Parts(path, "boot").found() == {}


def test_where_nothing_can_be_noted_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = begun(tmp_path / "file" / "parts")
    parts.note(1, part(1_000))
    parts.clear(1)
    assert parts.found() == {}
    parts.close()


def test_only_what_is_still_a_part_is_made_whole(tmp_path: Path) -> None:
    hierarchy = Hierarchy("v2", {}, str(tmp_path))
    store = OriginalsStore(tmp_path / "originals.json", "boot")
    noted = {}
    for name, held in (
        ("cut", "9000 100000"),
        ("changed", "30000 100000"),
        ("broken", "no"),
        ("gone", ""),
    ):
        folder = folder_like_a_cgroup(tmp_path, name)
        cgroup = hierarchy.open(name)
        store.remember(Original(cgroup.key, name, name, name, "boot", CpuLimit(None, 100_000), cgroup.paths))
        noted[cgroup.key] = part(9_000)
        cgroup.close()
        (folder / "cpu.max").write_text(held)
    for file in (tmp_path / "gone").iterdir():
        file.unlink()
    (tmp_path / "gone").rmdir()
    (failure,) = complete_all(store, hierarchy, noted)
    assert "broken" in failure
    assert (tmp_path / "cut" / "cpu.max").read_text() == "50000 100000"
    assert (tmp_path / "changed" / "cpu.max").read_text() == "30000 100000"
    assert complete_all(store, hierarchy, {}) == []


def test_a_loan_is_noted_until_it_is_over(tmp_path: Path, path: Path) -> None:
    parts = begun(path)
    place = Place(tmp_path, ["dry", "calm"], parts=parts)
    assert place.meet() == ["calm"]
    found = Parts(path, "boot").found()
    assert {(each.left.quota_usec, each.whole) for each in found.values()} == {
        (quota, WHOLE) for quota in place.quotas_usec
    }
    place.period_ends()
    assert Parts(path, "boot").found() == {}
    place.roster.close()
    parts.close()
