"""A very short run of the comparison, with real services in real cgroups."""

import json
from pathlib import Path

import pytest

from benchmarks.compare.comparison import measure
from benchmarks.compare.records import read_records
from escra_agent.hierarchy import Hierarchy

pytestmark = pytest.mark.kernel


def test_escra_beside_fixed_limits(hierarchy: Hierarchy, tmp_path: Path) -> None:
    """What is measured is there and true to itself; who is better takes longer to say.

    On a machine that does much else nothing may be answered in time: that is to happen three times.
    """
    policies = ("escra", "static-1x")
    for attempt in range(3):
        said: list[str] = []
        folder = tmp_path / str(attempt)
        measure(False, said.append, folder, 2.0, 1, policies, ("exp",), ("shop",))
        result = json.loads((folder / "results.json").read_text())
        if all(cell["throughput_rps"]["median"] > 0 for cell in result["cells"]):
            break
    assert "applications media" in " ".join(result["left_out"])
    cells = {cell["policy"]: cell for cell in result["cells"]}
    assert cells.keys() == set(policies)
    for cell in cells.values():
        assert cell["omega_violations"] == 0, cell
        assert cell["omega_checks"] > 20
        assert 0 < cell["throughput_rps"]["median"] <= cell["offered_rps"]["median"]
        assert 0 < cell["p50_ms"]["median"] <= cell["p999_ms"]["median"]
        assert 0 < cell["used_cores"]["median"] < 2 * result["omega_cores"]
    assert cells["escra"]["writes_per_s"]["median"] > 0
    assert cells["static-1x"]["writes_per_s"]["median"] == 0
    assert sum("left" in line and "p99" in line for line in said) == 2, said

    (profile,) = result["profiles"]
    records = {record.policy: record for record in read_records(folder)}
    for record in records.values():
        assert record.series.keys() == profile["services"].keys()
        assert len(record.latencies_ms) + record.failed > 10
    fixed = records["static-1x"]
    for name, series in fixed.series.items():
        limit = profile["services"][name]["limit_cores_1x"]
        assert series.limit_cores == pytest.approx([limit] * len(fixed.times_s), abs=1e-3)
    assert any(len(set(series.limit_cores)) > 1 for series in records["escra"].series.values())
