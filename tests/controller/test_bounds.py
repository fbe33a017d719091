"""Hosts that are away after a restart: how much of an application they may hold together."""

from escra_controller.bounds import EVERYTHING, Absent, Bound


def test_what_a_host_brings_is_taken_off_the_sum_once() -> None:
    absent = Absent({"h1": EVERYTHING, "h2": EVERYTHING}, Bound(1000, 0))
    absent.joined("h2", Bound(50, 0))
    assert absent.reserved == Bound(950, 0)
    # It left, came back, and holds what it was granted since: h1 may hold what it held.
    absent.joined("h2", Bound(50, 0))
    assert absent.reserved == Bound(950, 0)
