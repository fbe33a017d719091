"""What `faults` takes for a difference between the kernel and what people are told."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import audit
from benchmarks.audit import REST_S, Audit
from benchmarks.kernelfiles import Limits
from benchmarks.world import LOOK_S, LOOKS

MEMORY = 64 << 20


def row(counted: float) -> dict[str, Any]:
    cpu = {"counted_cores": counted, "ordered_cores": None, "headroom_cores": 0.0}
    memory = {"counted_bytes": MEMORY, "ordered_bytes": None, "headroom_bytes": 0}
    return {"name": "web", "cpu": cpu, "memory": memory}


def looks(monkeypatch: pytest.MonkeyPatch, *kernel_cores: float) -> list[bool]:
    """Whether each look finds something wrong where half a core is counted."""
    judge, now, found = Audit(), 0.0, []
    for cores in kernel_cores:
        monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda now=now: now))
        found.append(bool(judge.wrong(row(0.5), Limits(cores, MEMORY))))
        now += LOOK_S
    return found


def test_the_rest_of_a_period_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(monkeypatch, 0.5, 0.1, 0.1, 0.5, 0.2, 0.2, 0.5) == 7 * [False]


def test_what_lasts_is_found_before_all_looks_were_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert True in looks(monkeypatch, *LOOKS * [0.1])
    assert REST_S < LOOKS * LOOK_S


def test_more_than_is_counted_is_wrong_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(monkeypatch, 0.6) == [True]
