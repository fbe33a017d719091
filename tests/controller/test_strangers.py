"""Who gives way when too many strangers are at the door."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from escra_controller.strangers import MAX_PER_ADDRESS, MAX_STRANGERS, Strangers


class Door:
    """``left`` is how many connections of an address had to go."""

    def __init__(self) -> None:
        self.strangers = Strangers()
        self.left: Counter[str] = Counter()

    def knock(self, address: str, times: int = 1) -> list[int]:
        """The numbers of those that were let in."""

        def leave() -> None:
            self.left[address] += 1

        numbers = [self.strangers.admit(address, leave) for _ in range(times)]
        return [number for number in numbers if number is not None]


def test_one_address_has_so_many_and_no_more() -> None:
    door = Door()
    numbers = door.knock("a", MAX_PER_ADDRESS + 3)
    assert len(numbers) == len(door.strangers) == MAX_PER_ADDRESS
    assert not door.left
    door.strangers.release(numbers[5])
    assert len(door.knock("a", 2)) == 1


def test_a_flood_from_many_addresses_keeps_no_other_out() -> None:
    door = Door()
    flood = [f"10.0.0.{n}" for n in range(MAX_STRANGERS // MAX_PER_ADDRESS)]
    for address in flood:
        door.knock(address, MAX_PER_ADDRESS)
    assert len(door.strangers) == MAX_STRANGERS
    assert not door.left
    assert len(door.knock("honest", 10)) == 10
    assert door.left == {flood[0]: 10}
    for address in flood * 2:
        door.knock(address, MAX_PER_ADDRESS)
    assert door.left["honest"] == 0
    assert len(door.strangers) == MAX_STRANGERS


def test_when_everybody_comes_from_elsewhere_the_oldest_gives_way() -> None:
    door = Door()
    for n in range(MAX_STRANGERS + 2):
        assert door.knock(f"host-{n}")
    assert door.left == {"host-0": 1, "host-1": 1}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 80), st.booleans()), max_size=40))
def test_it_never_forgets_or_counts_twice(steps: list[tuple[str, int, bool]]) -> None:
    door = Door()
    here: list[int] = []
    for address, times, release in steps:
        here += door.knock(address, times)
        if release:
            for number in here[::2] * 2:
                door.strangers.release(number)
    assert len(door.strangers) <= 3 * MAX_PER_ADDRESS
    for number in here:
        door.strangers.release(number)
    assert len(door.strangers) == 0
