"""Who lends to whom: within one application, only what is spare, and who cannot be written stops nobody."""

import time
from pathlib import Path

import pytest

from escra_agent.cgroupfs import Cgroup
from escra_agent.counters import Counters
from escra_agent.errors import LimitRejected
from escra_agent.labels import Labels
from escra_agent.lending import MOST_ASKED, Lender
from escra_agent.parts import Parts
from escra_agent.tracked import Tracked
from escra_common.messages import CpuLimit, CpuOrder, SetLimits
from tests.agent.test_keeper import SHOP, folder_like_a_cgroup, keeper_of, stat


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on while somebody sleeps, and only then: how much is lent depends on when it is asked for."""
    now_ns = 1_000_000_000_000

    def sleep(seconds: float) -> None:
        nonlocal now_ns
        now_ns += round(seconds * 1e9)

    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(time, "monotonic", lambda: now_ns / 1e9)
    monkeypatch.setattr(time, "sleep", sleep)


class Place:
    """Containers with half a core each, 5 ms into a period that was seen to begin; the first runs dry."""

    def __init__(
        self,
        tree: Path,
        names: list[str],
        labels: Labels = SHOP,
        *,
        others_usec: int = 2_000,
        parts: Parts | None = None,
    ) -> None:
        self.folders = [folder_like_a_cgroup(tree, name) for name in names]
        self.keeper, self.roster, _ = keeper_of(tree, names, labels, parts)
        self.obey(500)
        for usage_usec, nr_periods in ((1_000, 6), (2_000, 7)):
            for folder in self.folders:
                stat(folder, usage_usec, nr_periods)
            self.keeper.tick()
        for folder in self.folders[1:]:
            stat(folder, 1_000 + others_usec, 7)
        time.sleep(0.005)
        stat(self.folders[0], 51_000, 7)
        self.lender = Lender(self.roster, self.keeper)

    def obey(self, milli: int) -> None:
        orders = [CpuOrder(folder.stat().st_ino, 1, milli) for folder in self.folders]
        self.keeper.obey(SetLimits(orders))

    def named(self, name: str) -> Tracked:
        return next(t for t in self.roster.tracked.values() if t.candidate.name == name)

    def meet(self, rate: float = 0.5) -> list[str]:
        tracked = self.named("dry")
        counters = tracked.cgroup.read(tracked.plan.wanted)
        tracked.plan.saw(counters)
        return [other.candidate.name for other in self.lender.meet(tracked, counters, rate)]

    def period_ends(self) -> None:
        for nr_periods in (7, 8):
            for folder in self.folders:
                stat(folder, 70_000 if folder.name == "dry" else 4_000, nr_periods)
            self.keeper.tick()
        time.sleep(0.1)
        assert self.keeper.poll_boundaries() is None

    @property
    def quotas_usec(self) -> list[int]:
        return [int((folder / "cpu.max").read_text().split()[0]) for folder in self.folders]


def test_who_has_most_to_spare_lends_it(tmp_path: Path) -> None:
    place = Place(tmp_path, ["dry", "calm", "busy"])
    stat(place.folders[2], 43_000, 7)
    assert place.meet() == ["calm"]
    dry, calm, busy = place.quotas_usec
    assert busy == 50_000
    # 50 and 2 ms are used of 50 each; what one has more the other has less.
    assert dry + calm == pytest.approx(2 * 50_000 - 50_000 - 2_000, abs=2)
    # It leaves itself what it will use in the other 95 ms, as fast as in these 5, and a tenth of its quota.
    assert dry == 50_000 - 2_000 - 95_000 * (2_000 - 1_000) // 5_000 - 5_000
    assert place.lender.lent_usec == 48_000 - calm
    place.period_ends()
    assert place.quotas_usec == [50_000] * 3
    place.roster.close()


def test_who_has_enough_asks_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path, ["dry", "calm"])
    stat(place.folders[0], 6_000, 7)
    assert place.meet(rate=0.1) == []
    assert place.quotas_usec == [50_000] * 2
    place.roster.close()


def test_nobody_gets_above_his_ceiling(tmp_path: Path) -> None:
    place = Place(tmp_path, ["dry", "calm"], Labels("shop", cpu_max_milli=600))
    assert place.meet() == ["calm"]
    # Nine tenths of it are not to be exceeded within a period: 4 ms more than its limit.
    dry, calm = place.quotas_usec
    assert (dry, calm) == (4_000, 50_000 - 2_000 - 4_000)
    place.roster.close()


def test_what_is_left_to_a_lender_lets_no_order_below_its_floor(tmp_path: Path) -> None:
    place = Place(tmp_path, ["dry", "calm"], Labels("shop", cpu_min_milli=400))
    assert place.meet() == ["calm"]
    assert place.quotas_usec[1] < 30_000
    calm = place.named("calm")
    place.keeper.obey(SetLimits([CpuOrder(calm.key, 2, 300, 0, aligned=True)]))
    assert calm.plan.stands_for == CpuLimit(50_000, 100_000)
    place.period_ends()
    assert place.quotas_usec[1] == 50_000
    place.roster.close()


def test_other_applications_and_those_who_are_only_looked_at_lend_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, ["dry", "calm"])
    place.named("calm").observed = True
    assert place.meet() == []
    place.named("calm").observed = False
    calm = place.named("calm")
    calm.candidate = type(calm.candidate)("calm", "calm", calm.candidate.open, Labels("other"))
    time.sleep(0.01)
    assert place.meet() == []
    assert place.quotas_usec == [50_000] * 2
    place.roster.close()


def test_who_cannot_be_written_lends_nothing_and_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, ["dry", "stubborn", "calm"])
    write = Cgroup.write_limit

    def refusing(cgroup: Cgroup, limit: CpuLimit) -> CpuLimit:
        if cgroup.path == "/stubborn":
            raise LimitRejected("no")
        return write(cgroup, limit)

    monkeypatch.setattr(Cgroup, "write_limit", refusing)
    assert place.meet() == ["calm"]
    assert place.quotas_usec[1] == 50_000
    place.roster.close()


def test_only_so_many_are_read_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["dry", *(f"busy{n}" for n in range(2 * MOST_ASKED))]
    place = Place(tmp_path, names, others_usec=50_000)
    asked: list[str] = []
    read = Cgroup.read

    def noting(cgroup: Cgroup, known: CpuLimit | None = None, *, fresh: bool = False) -> Counters:
        asked.append(cgroup.path)
        return read(cgroup, known, fresh=fresh)

    monkeypatch.setattr(Cgroup, "read", noting)
    for _ in range(2):
        assert place.meet() == []
        time.sleep(0.01)
    others = [path for path in asked if path != "/dry"]
    assert len(others) == len(set(others)) == 2 * MOST_ASKED
    place.roster.close()
