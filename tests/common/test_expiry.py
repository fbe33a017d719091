import pytest

from escra_common.expiry import DAY_S, Expiry, Reminders
from escra_common.seldom import MAX_KEYS, Seldom

YEAR = Expiry("the year", 0, 365 * DAY_S)
WEEK = Expiry("the week", 0, 6 * DAY_S)


@pytest.mark.parametrize(
    ("expiry", "day", "said"),
    [
        (YEAR, 334, ""),
        (YEAR, 336, "the year ends in 29 days, on 1971-01-01 00:00 UTC; issue a new one"),
        (YEAR, 364.5, "ends in 12 hours"),
        (YEAR, 366, "ended on 1971-01-01 00:00 UTC and is refused"),
        (YEAR, -1, "valid only from 1970-01-01 00:00 UTC on; is the clock right?"),
        (WEEK, 3.9, ""),
        (WEEK, 4.1, "ends in 45 hours"),
    ],
)
def test_it_warns_30_days_before_the_end_or_in_the_last_third(expiry: Expiry, day: float, said: str) -> None:
    problem = expiry.problem(day * DAY_S)
    assert said in problem
    assert bool(problem) == bool(said)
    assert expiry.usable(day * DAY_S) == (0 <= day * DAY_S <= expiry.not_after)


def test_each_problem_is_said_once_a_day() -> None:
    reminders = Reminders()
    wall = 364 * DAY_S
    assert len(reminders.due([YEAR, WEEK], 0, wall)) == 2
    assert reminders.due([YEAR, WEEK], DAY_S - 1, wall) == []
    assert reminders.due([YEAR, WEEK], DAY_S - 1, wall + 3 * DAY_S) == [], "a set clock repeats nothing"
    assert len(reminders.due([YEAR], DAY_S, wall)) == 1
    assert reminders.due([YEAR], DAY_S + 1, 0) == []
    assert len(reminders.due([YEAR], DAY_S + 2, wall)) == 1, "one that was well in between is new"


def test_seldom_allows_a_line_per_key_and_second() -> None:
    seldom = Seldom()
    assert seldom.allows("a", 0)
    assert not seldom.allows("a", 0.9)
    assert seldom.allows("b", 0.9)
    assert seldom.allows("a", 1.0)


def test_seldom_is_bounded() -> None:
    seldom = Seldom()
    assert sum(seldom.allows(n, 0) for n in range(3 * MAX_KEYS)) == MAX_KEYS
    assert seldom.allows("later", 2)
