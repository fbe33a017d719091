from hypothesis import given
from hypothesis import strategies as st

from escra_controller.sharing import Claim, Holding, donations, max_min

claims = st.dictionaries(
    st.integers(0, 9),
    st.tuples(st.integers(0, 50), st.integers(0, 100), st.integers(1, 10)).map(
        lambda t: Claim(t[0], t[0] + t[1], t[2])
    ),
    max_size=8,
)


def test_a_satisfied_claim_leaves_the_rest_to_the_others() -> None:
    shares = max_min(90, {"small": Claim(0, 10, 1), "big": Claim(0, 100, 1), "huge": Claim(0, 1000, 1)})
    assert shares == {"small": 10, "big": 40, "huge": 40}


def test_weights_are_proportions() -> None:
    assert max_min(90, {"a": Claim(0, 100, 1), "b": Claim(0, 100, 2)}) == {"a": 30, "b": 60}


def test_a_floor_is_had_even_when_others_get_nothing() -> None:
    assert max_min(10, {"a": Claim(10, 50, 1), "b": Claim(0, 50, 1)}) == {"a": 10, "b": 0}


def test_a_floor_does_not_stop_its_owner_from_sharing_what_others_leave() -> None:
    assert max_min(100, {"a": Claim(40, 90, 1), "b": Claim(0, 5, 1), "c": Claim(0, 5, 1)})["a"] == 90


@given(st.integers(0, 400), claims)
def test_shares_are_within_bounds_and_nothing_wanted_is_left_over(
    total: int, wants: dict[int, Claim]
) -> None:
    shares = max_min(total, wants)
    assert all(claim.floor <= shares[key] <= claim.want for key, claim in wants.items())
    floors = sum(claim.floor for claim in wants.values())
    assert sum(shares.values()) <= max(total, floors)
    unhappy = [key for key, claim in wants.items() if shares[key] < claim.want]
    if unhappy:
        # Rounding down costs less than one per claim.
        assert sum(shares.values()) > min(total, max(total, floors)) - len(wants) - 1 or floors >= total


@given(st.integers(0, 400), claims)
def test_nobody_could_get_more_without_taking_from_one_who_has_less(
    total: int, wants: dict[int, Claim]
) -> None:
    shares = max_min(total, wants)
    for poor, claim in wants.items():
        if shares[poor] >= claim.want:
            continue
        for rich, other in wants.items():
            # Whoever is above the unsatisfied one's level is there because of its floor.
            if shares[rich] / other.weight > (shares[poor] + 1) / claim.weight:
                assert shares[rich] <= max(other.floor, (shares[poor] + 1) * other.weight / claim.weight)


holdings = st.dictionaries(
    st.integers(0, 9),
    st.tuples(*[st.integers(0, 100)] * 4).map(lambda t: Holding(*t)),
    max_size=8,
)


@given(st.integers(0, 500), holdings)
def test_donors_give_enough_but_not_what_they_use_of_their_fair_share(
    needed: int, held: dict[int, Holding]
) -> None:
    given_up = donations(needed, 0, held)
    freed = sum(held[key].limit - limit for key, limit in given_up.items())
    kept = {key: min(h.fair, max(h.floor, h.need)) for key, h in held.items()}
    assert freed >= min(needed, sum(max(0, h.limit - kept[key]) for key, h in held.items()))
    assert freed <= needed + 2 * len(held)
    assert all(kept[key] <= limit < held[key].limit for key, limit in given_up.items())


def test_what_is_not_used_goes_first() -> None:
    held = {"idle": Holding(100, 50, 10, 20), "busy": Holding(100, 50, 100, 20)}
    assert donations(40, 0, held) == {"idle": 60}
    assert donations(70, 0, held) == {"idle": 30}, "its fair share, too, as long as it does not use it"
    assert donations(90, 0, held) == {"idle": 20, "busy": 90}


def test_what_is_used_is_only_taken_for_those_below_their_share() -> None:
    held = {"idle": Holding(100, 50, 60, 20), "busy": Holding(100, 50, 100, 20)}
    assert donations(0, 200, held) == {"idle": 60}
    assert donations(10, 200, held) == {"idle": 60}, "the unused goes first"
    assert donations(70, 0, held) == {"idle": 55, "busy": 75}
