"""Due times and sums over a window, against the plain way to find the same."""

from hypothesis import given
from hypothesis import strategies as st

from escra_controller.due import NEVER, Due
from escra_controller.recent import RecentPeak, RecentSum

TIMES = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, NEVER])


@given(st.lists(st.one_of(st.tuples(st.sampled_from("abc"), TIMES), st.sampled_from([0.5, 1.0, 2.0]))))
def test_each_is_taken_once_when_its_last_time_has_come(steps: list[tuple[str, float] | float]) -> None:
    due, expected, now = Due[str](), dict[str, float](), 0.0
    for step in steps:
        if isinstance(step, tuple):
            key, at = step
            due.put(key, at)
            expected[key] = at
            assert (key in due) == (at < NEVER)
            continue
        now += step
        taken = due.take(now, most=10)
        assert sorted(taken) == sorted(key for key, at in expected.items() if at <= now)
        expected = {key: at for key, at in expected.items() if at > now}


def test_those_that_are_due_first_are_taken_first_and_the_others_wait() -> None:
    due = Due[str]()
    for key, at in (("late", 3.0), ("first", 1.0), ("second", 2.0)):
        due.put(key, at)
    assert due.take(9.0, most=2) == ["first", "second"]
    assert due.take(9.0, most=2) == ["late"]


@given(st.lists(st.tuples(st.integers(-5, 9), st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.1]))))
def test_sum_and_peak_of_the_last_second(steps: list[tuple[int, float]]) -> None:
    total, peak, all_of_them, now = RecentSum(1.0), RecentPeak(1.0), list[tuple[float, int]](), 0.0
    for amount, after in steps:
        now += after
        total.add(amount, now)
        peak.add(amount, now)
        all_of_them.append((now, amount))
        recent = [a for at, a in all_of_them if at > now - 1.0]
        assert (total.total(now), peak.peak(now)) == (sum(recent), max(recent))
    assert (total.total(now + 2), peak.peak(now + 2)) == (0, 0)
