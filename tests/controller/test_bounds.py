"""Hosts that are away after a restart: how much of an application they may hold together."""

from escra_controller.bounds import EVERYTHING, NOTHING, Absent, Bound, Bounds


def test_what_a_host_brings_is_taken_off_the_sum_once() -> None:
    omega = Bound(1000, 0)
    absent = Absent({"h1": EVERYTHING, "h2": EVERYTHING}, omega)
    absent.joined("h2", Bound(50, 0))
    assert absent.reserved(omega) == Bound(950, 0)
    # It left, came back, and holds what it was granted since: h1 may hold what it held.
    absent.joined("h2", Bound(50, 0))
    assert absent.reserved(omega) == Bound(950, 0)


def test_what_another_controller_may_give_out_grows_with_omega() -> None:
    absent = Absent({"h1": EVERYTHING, "h2": EVERYTHING}, Bound(1000, 0))
    absent.joined("h2", Bound(50, 0))
    assert absent.reserved(Bound(3000, 0)) == Bound(2950, 0)
    assert absent.reserved(Bound(500, 0)) == Bound(950, 0)  # what was there when Ω was more
    absent.joined("h1", Bound(2000, 0))
    assert absent.reserved(Bound(3000, 0)) == Bound(0, 0)


def test_what_was_bounded_before_a_restart_stays_so_when_omega_grows() -> None:
    absent = Absent({"h1": Bound(800, 0), "h2": Bound(700, 0)}, Bound(1000, 0))
    absent.joined("h2", Bound(500, 0))
    assert absent.reserved(Bound(3000, 0)) == Bound(500, 0)


def test_only_what_is_twice_as_much_as_is_wanted_is_lowered() -> None:
    """Who wants it again has to wait for the disk."""
    omega = Bound(1000, 1000)
    bounds = Bounds({"h1": Bound(900, 600)})
    lower = bounds.ask("h1", Bound(100, 200), NOTHING, omega)
    assert lower is not None
    assert lower.cpu < 450
    assert lower.memory == 600
    bounds.secured("h1", lower)
    assert bounds.ask("h1", Bound(100, 200), NOTHING, omega) is None
