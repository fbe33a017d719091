import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_controller.ledger import Ledger, Overdraft


def test_growth_is_counted_when_it_is_ordered() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.order("a", 60, rev=1)
    assert ledger.free == 40
    with pytest.raises(Overdraft):
        ledger.order("b", 41, rev=2)
    assert "b" not in ledger


def test_a_shrink_frees_nothing_until_it_is_acknowledged() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.adopt("a", 80)
    ledger.order("a", 30, rev=1)
    assert ledger.free == 20
    assert ledger.acknowledge("a", 1, 30)
    assert ledger.free == 70


def test_of_several_orders_under_way_the_largest_counts() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.adopt("a", 50)
    ledger.order("a", 20, rev=1)
    ledger.order("a", 40, rev=2)
    ledger.order("a", 10, rev=3)
    assert ledger.counted == 50
    assert not ledger.acknowledge("a", 1, 20)
    assert ledger.counted == 50, "an order after it may still be the one in force"
    assert ledger.acknowledge("a", 3, 10)
    assert ledger.counted == 10


def test_an_overhang_is_worked_off_and_does_not_come_back() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.adopt("a", 80)
    ledger.resize(50)
    ledger.check()
    assert ledger.free == 0
    with pytest.raises(Overdraft):
        ledger.order("b", 1, rev=1)
    ledger.order("a", 40, rev=2)
    ledger.acknowledge("a", 2, 40)
    assert ledger.free == 10
    with pytest.raises(Overdraft):
        ledger.order("a", 51, rev=3)


def test_headroom_is_counted_from_the_order_on_until_the_next_one_is_acknowledged() -> None:
    ledger: Ledger[str] = Ledger(100)
    with pytest.raises(Overdraft):
        ledger.order("a", 60, rev=1, headroom=41)
    ledger.order("a", 60, rev=1, headroom=30)
    assert ledger.free == 10
    assert ledger.acknowledge("a", 1, 60)
    assert (ledger["a"].headroom, ledger.free) == (30, 10)
    ledger.order("a", 60, rev=2)
    assert (ledger["a"].frees, ledger.free) == (True, 10)
    assert ledger.acknowledge("a", 2, 60)
    assert (ledger["a"].headroom, ledger.free) == (0, 40)


def test_what_was_drawn_is_held_and_the_headroom_is_gone() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.order("a", 60, rev=1, headroom=30)
    ledger.acknowledge("a", 1, 60)
    ledger.drew("a", 90)
    assert (ledger["a"].held, ledger["a"].headroom, ledger.free) == (90, 0, 10)


def test_what_is_drawn_before_a_cut_arrives_counts_until_that_is_acknowledged() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.order("a", 60, rev=1, headroom=30)
    ledger.acknowledge("a", 1, 60)
    ledger.order("a", 40, rev=2)
    ledger.drew("a", 90)
    assert ledger.free == 10
    ledger.acknowledge("a", 2, 85)
    assert ledger.free == 15, "the cut went as far as it could"


def test_an_order_that_was_not_carried_out_leaves_no_headroom() -> None:
    ledger: Ledger[str] = Ledger(100)
    ledger.adopt("a", 20)
    ledger.order("a", 60, rev=1, headroom=30)
    assert ledger.acknowledge("a", 1, 20, carried_out=False)
    assert (ledger["a"].headroom, ledger.free) == (0, 80)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["adopt", "order", "headroom", "ack", "late", "drew", "forget", "resize"]),
            st.sampled_from("abc"),
            st.integers(0, 120),
        ),
        max_size=60,
    )
)
def test_the_sum_is_never_above_what_was_there_and_the_limit(steps: list[tuple[str, str, int]]) -> None:
    ledger: Ledger[str] = Ledger(100)
    for rev, (what, key, amount) in enumerate(steps, 1):
        before = ledger.counted
        grows_by_fact = False
        match what:
            case "adopt":
                ledger.adopt(key, amount)
                grows_by_fact = True
            case "order":
                try:
                    ledger.order(key, amount, rev)
                except Overdraft:
                    assert ledger.counted == before
            case "headroom":
                try:
                    ledger.order(key, amount // 2, rev, amount - amount // 2)
                except Overdraft:
                    assert ledger.counted == before
            case "drew" if key in ledger:
                ledger.drew(key, min(amount, ledger[key].counted))
            case "ack" if key in ledger:
                ledger.acknowledge(key, ledger[key].rev or rev, ledger[key].ordered)
            case "late":
                ledger.acknowledge(key, -1, min(amount, ledger[key].counted) if key in ledger else 0)
            case "forget":
                ledger.forget(key)
            case "resize":
                ledger.resize(amount)
        ledger.check()
        assert grows_by_fact or ledger.counted <= max(before, ledger.omega)
