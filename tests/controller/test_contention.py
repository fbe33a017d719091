"""Who asks and who gives when there is less than is wanted, through the engine."""

import random

from tests.controller.world import World, spec


def test_who_wishes_for_more_gives_nothing_for_its_own_wish() -> None:
    """What it used lately was under the lower limit of then."""
    world = World(spec(cpu=1000))
    world.join("h1")
    hungry, other = world.add("h1", 5000), world.add("h1", 5000)
    world.run(5)
    shared = world.rules(hungry).count("share")
    other.want = 50
    world.run(5)
    assert hungry.held > 850
    assert world.rules(hungry).count("share") == shared


def test_who_starves_gets_what_others_do_not_use_of_their_fair_share() -> None:
    world = World(spec(cpu=1000))
    world.join("h1")
    others = [world.add("h1", 190) for _ in range(5)]
    starved = world.add("h1", 150)
    world.run(2)
    # All of them rest, too short a time to be idle, and keep what they have: about a sixth each.
    for kernel in others:
        kernel.want = 60
    starved.want = 550
    world.run(0.9)  # before they have shrunk to that by themselves
    assert starved.held > 500
    assert all(60 <= kernel.held < 167 for kernel in others)


def test_a_period_cut_short_now_and_then_is_no_reason_to_ask_others() -> None:
    """They have those, too: what is taken from them is asked back, and all are throttled more for it."""
    dice = random.Random(1)
    world = World(spec(cpu=1000))
    world.join("h1")
    kernels = [(world.add("h1"), mean) for mean in (250, 120, 80, 60, 50, 40, 30, 30, 20, 20)]
    for _ in range(300):
        for kernel, mean in kernels:
            kernel.want = mean * dice.choice((0.4, 0.7, 1.0, 1.3, 1.6))
        world.run(0.1)
    throttled = sum(kernel.nr_throttled for kernel, _ in kernels) / sum(
        kernel.nr_periods for kernel, _ in kernels
    )
    # A fifth of the periods would be, had each its part of Ω by its mean.
    assert throttled < 0.18
    shares = sum(world.rules(kernel).count("share") for kernel, _ in kernels)
    assert shares < 5 * 30, "a second"
