"""Rows become items, sorted and filtered; cells have exactly the width they are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_controller.top.cells import (
    amount_bar,
    fitted,
    fitted_line,
    short_bytes,
    short_cores,
    trace_line,
    width_of,
)
from escra_controller.top.columns import COLUMNS, Scale, fit
from escra_controller.top.command import SORTS
from escra_controller.top.items import (
    FRAMES_KEPT,
    SORT_KEYS,
    Item,
    Past,
    Trace,
    descends,
    in_order,
    listed,
    matching,
)
from tests.top.pictures import MIB, container, picture

PICTURE = picture(
    container("web", cpu=0.9, throttled=0.5, memory=10 * MIB),
    container("api", cpu=0.1, memory=90 * MIB, oom_kills=2, cpu_limit=None),
    container("nightly", "jobs", "beta", cpu=0.4, memory=50 * MIB, cpu_limit=3.0, state="lost"),
)


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("cpu", ["web", "nightly", "api"]),
        ("limit", ["api", "nightly", "web"]),
        ("throttled", ["web", "api", "nightly"]),
        ("memory", ["api", "nightly", "web"]),
        ("oom", ["api", "nightly", "web"]),
        ("name", ["api", "nightly", "web"]),
        ("app", ["nightly", "api", "web"]),
        ("host", ["api", "web", "nightly"]),
        ("state", ["nightly", "api", "web"]),
    ],
)
def test_order(by: str, expected: list[str]) -> None:
    assert names(in_order(listed(PICTURE)["containers"], by)) == expected


def test_the_largest_comes_first_unless_it_is_reversed() -> None:
    assert names(in_order(listed(PICTURE)["containers"], "cpu", reverse=True)) == ["api", "nightly", "web"]
    assert descends("cpu")
    assert not descends("cpu", reverse=True)
    assert not descends("name")


def test_the_command_offers_all_orders() -> None:
    assert set(SORTS) == set(SORT_KEYS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("", 3), ("WEB", 1), ("beta", 1), ("shop alpha", 2), ("shop beta", 0), ("lost", 1), ("  ", 3)],
)
def test_every_word_of_a_filter_must_be_found(words: str, expected: int) -> None:
    assert len(matching(listed(PICTURE)["containers"], words)) == expected


def test_applications_and_hosts_say_the_worst_of_their_containers() -> None:
    shop = next(item for item in listed(PICTURE)["apps"] if item.name == "shop")
    assert (shop.containers, shop.throttled, shop.oom_kills) == (2, 0.5, 2)
    alpha = next(item for item in listed(PICTURE)["hosts"] if item.name == "alpha")
    assert alpha.cpu.used == pytest.approx(1.0)
    assert (alpha.cpu.limit, alpha.memory.used, alpha.oom_kills) == (8, 100 * MIB, 2)


def test_a_host_that_has_not_come_back_is_listed() -> None:
    absent = {
        "host": "gone",
        "state": "absent",
        "cgroup_version": "",
        "containers": None,
        "last_seen_s": None,
    }
    (item,) = listed({**picture(), "agents": [absent]})["hosts"]
    for column, width in fit(COLUMNS["hosts"], 200):
        assert (
            width_of("".join(text for text, _ in column.draw(item, Trace(), width, Scale(None, None))))
            == width
        )


def test_the_past_is_bounded_and_forgets_what_has_gone() -> None:
    past = Past()
    for n in range(FRAMES_KEPT + 10):
        past.add(listed(picture(container("web", oom_kills=n == FRAMES_KEPT + 9)))["containers"])
    web, gone = listed(picture(container("web"), container("gone")))["containers"]
    assert len(past.of(web).cpu) == FRAMES_KEPT
    assert past.of(web).was_killed
    past.add([gone])
    assert len(past.of(web).cpu) == 0


@given(st.text(max_size=30), st.integers(0, 20), st.booleans())
def test_a_text_is_as_wide_as_it_is_told(text: str, width: int, right: bool) -> None:
    assert width_of(fitted(text, width, right=right)) == width
    assert (
        width_of("".join(piece for piece, _ in fitted_line([(text, "plain"), ("x", "bad")], width))) == width
    )


@given(st.text(max_size=40))
def test_no_text_can_steer_a_terminal(text: str) -> None:
    assert all(char.isprintable() for char in fitted(text, 10))


@given(st.floats(0, 1e6))
def test_amounts_are_short(value: float) -> None:
    assert len(short_cores(min(value, 9999))) <= 4
    assert len(short_bytes(value * 1e6)) <= 4


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0, 10), st.integers(1, 30), st.booleans())
def test_bars_and_traces_are_as_wide_as_they_are_told(
    values: list[float], top: float, width: int, ascii_only: bool
) -> None:
    trace = trace_line(values, values, top, width, ascii_only=ascii_only)
    bar = amount_bar(top, top / 2, None, top * 2, width, ascii_only=ascii_only)
    for line in (trace, bar):
        text = "".join(piece for piece, _ in line)
        assert len(text) == width
        assert text.isascii() or not ascii_only


def test_a_bar_shows_use_and_what_is_free() -> None:
    assert amount_bar(0.5, 1.0, None, 2.0, 8, ascii_only=True) == [("##", "good"), ("--    ", "dim")]
    assert amount_bar(0.95, 1.0, None, 1.0, 10, ascii_only=True)[0] == ("##########", "warn")
    assert amount_bar(0.5, None, None, 1.0, 4, ascii_only=True)[0][0] == "##"


def test_throttled_moments_stand_out_in_a_trace() -> None:
    assert trace_line([1, 1, 1], [0, 0.5, 0], 1, 4, ascii_only=True)[1:] == [
        ("#", "good"),
        ("#", "warn"),
        ("#", "good"),
    ]


@pytest.mark.parametrize("kind", ["apps", "containers", "hosts"])
@pytest.mark.parametrize("width", [80, 100, 132, 160, 200, 300])
def test_columns_fit(kind: str, width: int) -> None:
    chosen = fit(COLUMNS[kind], width)  # type: ignore[index]
    assert sum(size + 1 for _, size in chosen) - 1 <= width
    titles = [column.title for column, _ in chosen]
    assert {"THR", "OOM", "CPU", "MEMORY"} <= set(titles)
    assert "PAST" in titles
    if width >= 200:
        assert len(chosen) == len(COLUMNS[kind])  # type: ignore[index]
