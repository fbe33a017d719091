"""The pure parts of the comparison's serverless runs: the pattern, and what becomes of what was seen."""

from itertools import pairwise

import pytest

from benchmarks.compare import serverlessreport
from benchmarks.compare.invocations import (
    CLIENT_SPREAD_S,
    FUNCTIONS,
    Function,
    Invocation,
    Sample,
    arrivals,
    metrics,
    ratios,
)
from benchmarks.compare.summary import summarised

FUNCTION = Function("f", "image", clients=3, delay_s=2.0, pool=8)


def test_clients_invoke_together_and_do_not_wait() -> None:
    planned = arrivals(FUNCTION, seconds=20, seed=1)
    assert planned == arrivals(FUNCTION, 20, 1) != arrivals(FUNCTION, 20, 2)
    assert len(planned) == 3 * 10
    rounds = [planned[n : n + 3] for n in range(0, 30, 3)]
    assert all(each[-1] - each[0] <= CLIENT_SPREAD_S for each in rounds)
    starts = [each[0] for each in rounds]
    assert all(b - a == pytest.approx(2, abs=CLIENT_SPREAD_S) for a, b in pairwise(starts))


def test_omega_is_what_a_full_pool_may_use() -> None:
    assert (FUNCTION.omega_cores, FUNCTION.omega_bytes) == (8.0, 2048 << 20)
    for function in FUNCTIONS:
        assert function.clients <= function.pool
        assert str(function.pool) in function.about


def test_latency_counts_from_the_planned_time_and_a_failure_as_patience() -> None:
    done = [
        Invocation(planned_at=1.0, sent_at=1.2, ended_at=1.5, cold=False),
        Invocation(planned_at=2.0, sent_at=2.0, ended_at=2.9, cold=True),
        Invocation(planned_at=3.0, sent_at=3.0, ended_at=float("inf"), cold=True),
    ]
    found = metrics(done, [Sample(10.0, 1, 1.0, 0.5, 2**20, 2**19)], patience_s=30)
    assert found["p50_ms"] == pytest.approx(900)
    assert found["p99_ms"] == pytest.approx(30_000)
    assert found["warm_p99_ms"] == pytest.approx(500)
    assert found["cold_p50_ms"] == pytest.approx(900)
    assert found["cold_share"] == pytest.approx(2 / 3)
    assert found["late_ms_p99"] == pytest.approx(200)
    assert found["under_way"] == pytest.approx((0.5 + 0.9 + 30) / 10)


def test_limits_and_use_are_means_of_the_sums() -> None:
    samples = [Sample(0.1, 2, 2.0, 0.4, 512 * 2**20, 2**20), Sample(0.2, 0, 0.0, 0.0, 0.0, 0)]
    found = metrics([Invocation(0, 0, 1, cold=True)], samples, 30)
    assert (found["containers"], found["limit_cores"], found["used_cores"]) == (1.0, 1.0, 0.2)
    assert (found["limit_mib"], found["used_mib"], found["limit_mib_max"]) == (256.0, 0.5, 512.0)
    assert "warm_p50_ms" not in found


def test_the_report_says_what_escra_needs_of_the_fixed_limits() -> None:
    fixed = {"p50_ms": 100.0, "p99_ms": 200.0, "limit_cores": 4.0, "limit_mib": 1000.0, "used_mib": 0.0}
    escra = fixed | {"p99_ms": 210.0, "limit_cores": 2.0, "limit_mib": 300.0}
    found = ratios(escra, fixed)
    assert found == pytest.approx({"p50_ms": 1.0, "p99_ms": 1.05, "limit_cores": 0.5, "limit_mib": 0.3})
    cells = [
        {"function": "f", "policy": policy, **summarised([seen]), "omega_violations": 0, "oom_kills": 0}
        for policy, seen in (("fixed", fixed), ("escra", escra))
    ]
    result = {
        "repetitions": 1,
        "seconds": 20,
        "patience_ms": 30_000,
        "functions": [{"name": "f", "about": FUNCTION.about}],
        "cells": cells,
        "ratios": [{"function": "f", "policy": "escra", **summarised([found])}],
    }
    text = serverlessreport.markdown(result)
    assert "## f: clients: 3, each invokes every 2 s; a container waits 10 s" in text
    assert "| escra | 100 [100, 100] | 210 [210, 210] | none set | none set | 2.00 [2.00, 2.00] |" in text
    assert "| escra | 0.50 [0.50, 0.50] | 0.30 [0.30, 0.30] |" in text
