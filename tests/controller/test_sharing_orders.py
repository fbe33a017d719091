"""Who gives when the pool is empty, through the engine."""

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
