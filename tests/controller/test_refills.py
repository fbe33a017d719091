from escra_controller.refills import Refills


def test_what_is_expected_counts_until_it_is_known() -> None:
    refills: Refills[str] = Refills()
    refills.expect("a", 5)
    refills.expect("b", 5)
    assert (refills.total(10.0), refills.expected("a")) == (10, 5)
    refills.came("a", 2, 10.1, last=True)
    assert (refills.total(10.1), refills.expected("a")) == (7, 0)


def test_any_of_several_orders_may_still_come() -> None:
    refills: Refills[str] = Refills()
    refills.expect("a", 5)
    refills.expect("a", 8)
    refills.came("a", 1, 10.0, last=False)
    assert refills.total(10.0) == 14
    refills.came("a", 0, 10.1, last=True)
    assert refills.total(10.1) == 1


def test_a_second_later_it_is_over() -> None:
    refills: Refills[str] = Refills()
    refills.came("a", 7, 10.0, last=True)
    assert refills.total(10.9) == 7
    assert refills.total(11.0) == 0


def test_of_whom_nobody_hears_any_more_it_is_taken_to_have_come() -> None:
    refills: Refills[str] = Refills()
    refills.expect("a", 5)
    refills.expect("b", 3)
    refills.lapse(lambda key: key == "b", 10.0)
    assert (refills.total(10.0), refills.expected("a")) == (8, 0)
    assert refills.total(11.0) == 3
