"""Who is brought in when: pure arithmetic of the agents' door."""

import pytest

from escra_controller.turns import CREDIT, LONGEST_TURN_S, MAX_KNOWN, PATIENCE_S, TURN_S, Turns


def test_a_fleet_that_comes_back_is_not_kept_waiting() -> None:
    """Nobody known, as after a restart; here and there one gives up."""
    turns = Turns()
    for n in range(1000):
        turns.wait_s(f"host-{n}", now=0.0)
        if n % 10:
            turns.joined(f"host-{n}")
        else:
            turns.wasted(f"host-{n}")
    assert turns.wait_s("the last", now=0.0) <= 1000 * TURN_S * 1.1


def test_a_flood_that_leads_to_nothing_is_slowed_down() -> None:
    turns, now = Turns(), 0.0
    for _ in range(200):
        now += turns.wait_s("evil", now)
        turns.wasted("evil")
    assert turns.wait_s("evil", now) == pytest.approx(LONGEST_TURN_S)


def test_but_even_then_nobody_waits_longer_than_a_handshake_may_take() -> None:
    turns = Turns()
    for _ in range(200):
        turns.wasted("evil")
    waits = [turns.wait_s(f"10.0.0.{n}", now=0.0) for n in range(250)]
    assert waits == sorted(waits)
    assert waits[-1] < PATIENCE_S + 250 * TURN_S + LONGEST_TURN_S < 1.5


def test_a_flood_of_strangers_holds_up_nobody_who_is_known() -> None:
    turns = Turns()
    turns.joined("good")
    for _ in range(200):
        turns.wait_s("evil", now=0.0)
        turns.wasted("evil")
    assert turns.wait_s("good", now=0.0) == 0.0
    assert turns.wait_s("good", now=0.0) == pytest.approx(TURN_S)


def test_who_is_known_loses_that_by_what_leads_to_nothing_and_has_it_again_by_joining() -> None:
    turns = Turns()
    for _ in range(200):
        turns.wasted("evil")
    turns.wait_s("evil", now=0.0)  # strangers wait from now on
    turns.joined("good")
    for _ in range(CREDIT - 1):
        turns.wasted("good")
    assert turns.wait_s("good", now=0.0) == 0.0
    turns.wasted("good")
    assert turns.wait_s("good", now=0.0) > 0.0
    turns.joined("good")
    assert turns.wait_s("good", now=1.0) == 0.0


def test_only_so_many_are_remembered_those_who_joined_last() -> None:
    turns = Turns()
    for n in range(MAX_KNOWN + 1):
        turns.joined(f"host-{n}")
        turns.joined("host-0")
    for _ in range(2):  # strangers wait for each other, with a lane of their own
        first = turns.wait_s("host-1", now=0.0)
    assert first > 0.0
    assert turns.wait_s("host-0", now=0.0) == 0.0
