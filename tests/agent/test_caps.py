"""Orders beyond caps and labels are refused; those of an honest controller never are."""

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from escra_agent.caps import (
    LEAST_MARGIN_BYTES,
    MOST_MARGIN_BYTES,
    WRITES_AT_ONCE,
    WRITES_PER_S,
    Caps,
    HostCaps,
    Pace,
    Resource,
    least_of,
    margin_bytes,
    total_refusal,
)
from escra_agent.labels import Labels
from escra_common.units import Cpu, Size

MIB = 1 << 20
RESOURCES: tuple[Resource, Resource] = ("cpu", "memory")
amounts = st.integers(1, 10**12)
maybe = st.none() | amounts


def host(least: int | None, most: int | None, total: int | None, there_is: int | None = None) -> HostCaps:
    """The same numbers for both resources."""
    numbers = {"min": least, "max": most, "total": total}
    given = {end: n for end, n in numbers.items() if n is not None}
    cpu = {f"cpu_{end}": Cpu(n) for end, n in given.items()}
    memory = {f"memory_{end}": Size(n) for end, n in given.items()}
    return HostCaps(msgspec.structs.replace(Caps(), **cpu, **memory), there_is, there_is)


def labels(least: int | None, most: int | None) -> Labels:
    return Labels("shop", "auto", 100, least, most, least, most)


@pytest.mark.parametrize("resource", RESOURCES)
@given(maybe, maybe, maybe, maybe, amounts, amounts)
def test_what_passes_is_within_or_leads_there(
    resource: Resource,
    cap_least: int | None,
    cap_most: int | None,
    own_least: int | None,
    own_most: int | None,
    present: int,
    ordered: int,
) -> None:
    bounds = host(cap_least, cap_most, None).bounds(labels(own_least, own_most), resource, None)
    most = least_of(cap_most, own_most)
    least = max((n for n in (cap_least, own_least) if n is not None), default=0)
    refused = bounds.refusal(ordered, present) is not None
    if most is not None and ordered > most:
        assert refused == (ordered > present)
    elif ordered < (least if most is None else min(least, most)):
        assert refused == (ordered < present)
    else:
        assert not refused


@pytest.mark.parametrize("resource", RESOURCES)
@given(st.tuples(maybe, maybe, maybe, maybe), st.tuples(maybe, maybe), st.data())
def test_a_controller_that_keeps_to_what_it_is_told_is_never_refused(
    resource: Resource,
    caps: tuple[int | None, int | None, int | None, int | None],
    own: tuple[int | None, int | None],
    data: st.DataObject,
) -> None:
    least, most, total, there_is = caps
    uncapped, above = host(least, most, total, there_is), data.draw(maybe)
    wishes = labels(*own)
    assume(uncapped.caps.problem() == "")
    # As the controller's state reckons them, for an application that has enough.
    ceiling = least_of(own[1], uncapped.ceiling(resource, above), there_is)
    floor = least_of(uncapped.least(wishes, resource) or data.draw(st.integers(0, 100)), ceiling)
    assert floor is not None
    ordered = data.draw(st.integers(floor, ceiling if ceiling is not None else 10**13))
    assert uncapped.bounds(wishes, resource, above).refusal(ordered, data.draw(maybe)) is None


@given(amounts, st.lists(amounts, min_size=1, max_size=5), st.lists(amounts, min_size=1, max_size=40))
def test_raises_never_sum_to_more_than_the_total(total: int, start: list[int], orders: list[int]) -> None:
    limits = dict(enumerate(start))
    assume(sum(start) <= total)
    for number, ordered in enumerate(orders):
        key = number % len(limits)
        others = sum(limits.values()) - limits[key]
        if total_refusal("cpu", total, others, ordered, limits[key]) is None:
            limits[key] = ordered
        assert sum(limits.values()) <= total


def test_a_refusal_names_the_cap_and_the_order() -> None:
    caps = HostCaps(Caps(cpu_max=Cpu(2000), memory_min=Size(16 * MIB)))
    refusal = caps.bounds(Labels("shop"), "cpu", None).refusal(3000, 1000)
    assert refusal is not None
    assert refusal.text == (
        "refused: 3 cores of cpu is above this host's [caps] cpu_max, 2 cores; the limit stays"
    )
    refusal = caps.bounds(Labels("shop", memory_min_bytes=64 * MIB), "memory", None).refusal(8 * MIB, None)
    assert refusal is not None
    assert "8.0MiB of memory is below its own escra.memory.min, 64.0MiB" in refusal.text


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 40))
def test_a_margin_is_bounded_both_ways(ordered: int, needed: int) -> None:
    margin = margin_bytes(ordered, needed)
    assert LEAST_MARGIN_BYTES <= margin <= max(MOST_MARGIN_BYTES, needed)
    if LEAST_MARGIN_BYTES <= ordered <= MOST_MARGIN_BYTES:
        assert margin == ordered


@given(st.lists(st.floats(0, 0.5), max_size=300))
def test_a_pace_is_kept(gaps: list[float]) -> None:
    pace, now, taken = Pace(), 10.0, 0
    for gap in gaps:
        now += gap
        taken += pace.take(now)
    assert taken <= WRITES_AT_ONCE + WRITES_PER_S * (now - 10.0) + 1e-6


def test_an_honest_pace_is_never_too_fast() -> None:
    pace = Pace()
    assert all(pace.take(10.0 + step * 0.1) for step in range(1000))


@pytest.mark.parametrize(
    ("caps", "problem"),
    [
        (Caps(), ""),
        (Caps(cpu_min=Cpu(10), cpu_max=Cpu(10)), ""),
        (Caps(cpu_min=Cpu(20), cpu_max=Cpu(10)), "cpu_min is above cpu_max"),
        (Caps(memory_min=Size(20), memory_total=Size(10)), "memory_min is above memory_total"),
        (Caps(cpu_total=Cpu(0)), "a cpu_max or cpu_total of 0 would stop containers; leave it out"),
    ],
)
def test_caps_that_cannot_be_kept_are_named(caps: Caps, problem: str) -> None:
    assert caps.problem() == problem
