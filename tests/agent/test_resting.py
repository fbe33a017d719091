"""What those who rest have yet to tell, with a folder like a cgroup and a clock of its own."""

import time
from pathlib import Path

import pytest

from escra_agent.resting import Resting
from escra_agent.tracked import Tracked
from escra_common.messages import Sample, Samples
from tests.agent.test_keeper import folder_like_a_cgroup, keeper_of, stat


class Host:
    """One container, and ticks 100 ms apart, the first of a second 50 ms after it began."""

    def __init__(self, tree: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder_like_a_cgroup(tree, "one")
        self.now_usec = 100_050_000
        patch.setattr(time, "monotonic_ns", lambda: self.now_usec * 1000)
        self.keeper, self.roster, self.said = keeper_of(tree, ["one"])
        self.resting = Resting(self.roster.tracked)

    @property
    def tracked(self) -> Tracked:
        (tracked,) = self.roster.tracked.values()
        return tracked

    def tick(self) -> list[Sample]:
        """What it says of the container."""
        self.now_usec += 100_000
        self.said.clear()
        self.resting.wake()
        self.keeper.tick()
        self.resting.settle()
        return [sample for message in self.said if isinstance(message, Samples) for sample in message.samples]

    def close(self) -> None:
        self.resting.close()
        self.roster.close()


def test_one_that_did_next_to_nothing_rests_and_says_so_when_the_second_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch)
    for _ in range(9):
        host.tick()
    assert host.tracked.resting
    host.tick()
    stat(host.folder, 100, 1)
    assert [host.tick() for _ in range(4)] == [[]] * 4
    assert host.tracked.resting
    assert not host.tracked.sampler.silent
    assert [host.tick() for _ in range(5)] == [[]] * 5
    before, now = host.tick()
    assert (before.usage_usec, now.usage_usec) == (100, 100)
    assert now.time_usec == host.now_usec
    assert now.time_usec - before.time_usec == 100_000, "it was looked at in between"
    assert host.tracked.sampler.silent
    assert host.tracked.resting
    assert [host.tick() for _ in range(20)] == [[]] * 20
    host.close()


def test_one_that_falls_idle_from_little_rests_before_it_has_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch)
    for _ in range(10):
        host.tick()
    stat(host.folder, 800, 1)
    assert host.tick()[-1].usage_usec == 800, "8 millicores"
    assert [host.tick() for _ in range(4)] == [[]] * 4
    assert host.tracked.resting
    assert not host.tracked.sampler.told_idle
    assert [host.tick() for _ in range(4)] == [[]] * 4
    assert [sample.usage_usec for sample in host.tick()] == [800, 800]
    assert host.tracked.sampler.told_idle
    assert host.tracked.resting
    host.close()
