from escra_agent.cgroupfs import Counters
from escra_agent.sampler import Sampler
from escra_common.messages import CpuLimit


class Feed:
    """Readings of one container, 100 ms apart."""

    def __init__(self) -> None:
        self.sampler = Sampler()
        self.at = self.usage = self.periods = self.throttled = 0

    def tick(self, milli: float, throttled: bool = False) -> list[Counters]:
        self.at += 100_000
        self.usage += round(milli * 100)
        self.periods += milli > 0
        self.throttled += throttled
        reading = Counters(
            self.at,
            self.usage,
            self.periods,
            self.throttled,
            self.throttled * 50_000,
            CpuLimit(100_000, 100_000),
        )
        return self.sampler.judge(reading)


def test_an_idle_container_falls_silent() -> None:
    feed = Feed()
    assert [len(feed.tick(0)) for _ in range(50)] == [1, 1] + [0] * 48


def test_a_steady_container_is_told_once_a_second() -> None:
    feed = Feed()
    sent = [len(feed.tick(400)) > 0 for _ in range(52)]
    assert sum(sent[2:]) == 5


def test_throttling_is_always_told_with_the_reading_before_it() -> None:
    feed = Feed()
    for _ in range(5):
        feed.tick(900)
    before, now = feed.tick(1000, throttled=True)
    assert (before.nr_throttled, now.nr_throttled) == (0, 1)
    assert now.nr_periods - before.nr_periods == 1, "the ratio of this tick, undiluted"
    assert len(feed.tick(1000, throttled=True)) == 1


def test_waking_and_falling_idle_are_told_at_once() -> None:
    feed = Feed()
    for _ in range(5):
        feed.tick(0)
    assert len(feed.tick(80)) == 2
    assert len(feed.tick(0)) == 1
    assert feed.tick(0) == []


def test_next_to_nothing_is_told_within_a_second_and_so_is_its_end() -> None:
    feed = Feed()
    for _ in range(5):
        feed.tick(0)
    assert sum(len(feed.tick(3)) > 0 for _ in range(10)) == 1
    assert not feed.sampler.told_idle
    assert sum(len(feed.tick(0)) > 0 for _ in range(10)) == 1
    assert feed.sampler.told_idle


def test_what_is_idle_to_the_controller_too_is_told_with_all_others_when_a_second_begins() -> None:
    feed = Feed()
    for _ in range(12):
        feed.tick(0)
    assert feed.tick(4) == []
    assert [feed.tick(0) for _ in range(6)] == [[]] * 6
    assert not feed.sampler.silent
    before, now = feed.tick(0)
    assert (now.time_usec, before.time_usec) == (2_000_000, 1_900_000)
    assert before.usage_usec == now.usage_usec == 400
    assert feed.sampler.silent
    assert [feed.tick(0) for _ in range(20)] == [[]] * 20
    assert len(feed.tick(5)) == 2, "that counts as work"


def test_a_change_of_rate_is_told() -> None:
    feed = Feed()
    for _ in range(5):
        feed.tick(400)
    assert feed.tick(430) == [], "within 5 % of the limit"
    assert len(feed.tick(500)) == 2
