"""The comparison's pure parts: schedules, order, statistics, tables."""

import csv
import doctest
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import msgspec
import pytest

from benchmarks.compare import report
from benchmarks.compare.applications import Call, Design
from benchmarks.compare.designs import BARE, REAL
from benchmarks.compare.generator import Job
from benchmarks.compare.plan import Plan, order
from benchmarks.compare.profiling import OMEGA_CORES, USED_OF_OMEGA
from benchmarks.compare.regimes import POLICIES, Profile, omega_of
from benchmarks.compare.schedules import WORKLOADS, Arrival, Workload, schedule
from benchmarks.compare.software import FILLED, nginx_conf, software_of
from benchmarks.compare.summary import estimate, summarised
from tests.debian_image import DATABASES, WEB

MIX = {"read": 3.0, "write": 1.0}


def planned(workload: Workload, seed: int = 1) -> list[Arrival]:
    return schedule(workload, 200, 50, MIX, seed, {"read": 1.0, "write": 1.0})


def per_second(arrivals: list[Arrival]) -> list[int]:
    counts = [0] * 200
    for arrival in arrivals:
        counts[int(arrival.at_s)] += 1
    return counts


# ---- schedules ---------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_schedule_has_its_rate_and_is_the_same_for_the_same_seed(workload: Workload) -> None:
    arrivals = planned(workload)
    assert arrivals == planned(workload)
    assert workload == "fixed" or [a.at_s for a in arrivals] != [a.at_s for a in planned(workload, 2)]
    assert arrivals == sorted(arrivals, key=lambda arrival: arrival.at_s)
    assert 0 <= arrivals[0].at_s <= arrivals[-1].at_s < 200
    assert len(arrivals) / 200 == pytest.approx(50, rel=0.05)
    assert mean(arrival.size for arrival in arrivals) == pytest.approx(1, rel=0.03)


def test_fixed_is_even_and_exp_has_the_deviation_of_its_mean() -> None:
    even = [b.at_s - a.at_s for a, b in pairwise(planned("fixed"))]
    assert max(even) == pytest.approx(min(even)) == pytest.approx(0.02)
    poisson = [b.at_s - a.at_s for a, b in pairwise(planned("exp"))]
    assert stdev(poisson) == pytest.approx(mean(poisson), rel=0.05)


def test_bursts_are_twice_as_much_and_of_one_operation() -> None:
    """35 a second, and for a quarter of the time 60 more of one kind."""
    busy = sorted(per_second(planned("burst")))
    assert mean(busy[:80]) == pytest.approx(35, rel=0.15)
    assert mean(busy[-20:]) > 75
    # A second in which hardly anything is read can only be one of a burst of writes.
    arrivals = planned("burst")
    shares = [
        mean(a.operation == "write" for a in arrivals if second <= a.at_s < second + 1)
        for second in range(200)
    ]
    assert max(shares) > 0.6


def test_a_burst_is_worth_the_same_whatever_it_is_of() -> None:
    """Mean cost 2: reads of 1 come 1.2 * 2 as often as all did before, writes of 5 1.2 * 0.4 times."""
    costs = {"read": 1.0, "write": 5.0}
    arrivals = schedule("burst", 400, 50, MIX, 1, costs)
    work = sum(costs[arrival.operation] for arrival in arrivals) / 400
    assert work == pytest.approx(50 * 2, rel=0.07)


def test_the_traces_shape_moves_slowly_and_far() -> None:
    counts = per_second(planned("alibaba"))
    assert max(counts) > 1.8 * mean(counts)
    near = mean(abs(b - a) for a, b in pairwise(counts))
    far = mean(abs(b - a) for a, b in zip(counts, counts[60:], strict=False))
    assert near < 0.8 * far


def test_every_operation_begins_at_the_entry_and_is_in_the_mix() -> None:
    assert BARE.keys() == REAL.keys() == set(Plan().applications)
    for design in (*BARE.values(), *REAL.values()):
        assert {call.service for call in design.operations.values()} == {design.entry}
        assert design.mix.keys() == design.operations.keys()
        assert len(design.services) >= 8


# ---- applications of real software -------------------------------------------------


def every_call(call: Call) -> Iterator[Call]:
    yield call
    for stage in call.stages:
        for below in stage:
            yield from every_call(below)


def depth(call: Call) -> int:
    return 1 + max((depth(below) for stage in call.stages for below in stage), default=0)


@pytest.mark.parametrize("design", REAL.values(), ids=REAL)
def test_nginx_is_in_front_and_the_databases_at_the_ends(design: Design) -> None:
    conf = nginx_conf(design)
    for operation in design.operations.values():
        first, *others = every_call(operation)
        assert first.service == "nginx"
        ((behind,),) = first.stages
        assert f"location = /{behind.service} {{" in conf
        for call in others:
            assert call.service != "nginx"
            assert not (call.stages and call.service in ("postgres", "redis"))
    assert {"postgres", "redis"} <= {*design.services}
    for store in ("postgres", "redis"):
        assert f"upstream {store}" not in conf


def test_a_review_of_the_media_service_has_the_longest_way() -> None:
    assert depth(REAL["media"].operations["compose"]) == 8
    assert max(depth(operation) for operation in REAL["shop"].operations.values()) == 5


def test_each_service_runs_its_own_software() -> None:
    images = {name: software_of(name, "/code", "/conf").image for name in REAL["shop"].services}
    assert images["nginx"] == images["frontend"] == images["images"] == WEB
    assert images["redis"] == DATABASES
    assert images["postgres"] == FILLED
    options = software_of("cart", "/code", "/conf").run_options("--name=cart")
    assert options.index("--name=cart") < options.index(WEB) < options.index("cart")
    assert "--volume=/code:/srv/benchmarks:ro" in options


def test_the_generator_is_told_the_whole_design() -> None:
    job = Job(REAL["media"], "burst", "http://127.0.0.1:8000", 50.0, 3.0, 60.0, 1)
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job


# ---- order -------------------------------------------------------------------------


def test_policies_are_interleaved_in_another_order_each_time() -> None:
    rounds = [policy for _, policy in order(POLICIES, 5, seed=1)]
    each = [rounds[n : n + len(POLICIES)] for n in range(0, len(rounds), len(POLICIES))]
    assert all(sorted(once) == sorted(POLICIES) for once in each)
    assert len({tuple(once) for once in each}) == 5


def test_quick_says_what_it_leaves_out() -> None:
    assert Plan().left_out() == []
    said = " ".join(Plan.quick().left_out())
    for missing in ("fixed", "exp", "alibaba", "media", "repetitions"):
        assert missing in said
    with pytest.raises(SystemExit, match="there is no escrow"):
        Plan(policies=["escrow"]).check()


def test_parts_of_omega_go_by_use() -> None:
    used = {"a": 0.5, "b": 0.2}
    profile = Profile(80, used, {}, {"a": 70, "b": 35}, OMEGA_CORES, USED_OF_OMEGA)
    assert profile.cores("a") == pytest.approx(0.5 / 0.7)
    assert profile.cores("b", 1.5) == pytest.approx(0.3 / 0.7)
    assert profile.memory_bytes("a") == 100
    assert profile.omega_bytes == 150
    assert omega_of("escra", profile) == (1.0, 150)
    assert omega_of("weights", profile) is None


# ---- statistics --------------------------------------------------------------------


def test_the_bootstrap_interval_is_around_the_median_and_within_the_values() -> None:
    made = estimate([1, 2, 3, 4, 100])
    assert made.median == 3
    assert 1 <= made.low < 3 < made.high <= 100
    assert estimate([5.0] * 5) == (5, 5, 5)
    wide, narrow = estimate(range(0, 100, 10)), estimate([v / 10 for v in range(0, 100, 10)])
    assert wide.high - wide.low == pytest.approx(10 * (narrow.high - narrow.low))


def test_bootstrap_intervals_cover_the_true_median() -> None:
    """Of 20 values out of 0..1 again and again: nearly always."""
    dice = random.Random(1)
    covered = 0
    for _ in range(40):
        made = estimate([dice.random() for _ in range(20)])
        covered += made.low <= 0.5 <= made.high
    assert covered >= 34


def test_a_metric_that_one_has_not_is_left_out() -> None:
    made = summarised([{"a": 1.0, "b": 2.0}, {"a": 3.0}])
    assert made.keys() == {"a"}
    assert made["a"]["median"] == 2.0


# ---- tables ------------------------------------------------------------------------


def test_tables_have_a_row_for_each_policy(tmp_path: Path) -> None:
    assert doctest.testmod(report).failed == 0
    number = {"median": 12.34, "low": 11.0, "high": 13.0}
    cells = [
        {"policy": policy, "workload": "exp", "application": "shop", "throughput_rps": number, "oom_kills": 0}
        for policy in ("escra", "static-1x")
    ]
    result = {
        "place": "bare cgroups",
        "omega_cores": 1.0,
        "repetitions": 5,
        "seconds": 60.0,
        "patience_ms": 2000.0,
        "left_out": ["workloads fixed"],
        "profiles": [{"application": "shop", "workload": "exp", "rate_rps": 70.0}],
        "cells": cells,
    }
    report.write(tmp_path, result)
    text = (tmp_path / "results.md").read_text()
    assert "| static-1x | 12.3 [11.0, 13.0] |" in text
    assert "workloads fixed" in text
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert {"policy": "escra", "metric": "throughput_rps", "median": "12.34"}.items() <= rows[0].items()
