"""Programs that outgrow their limit, with both daemons at work: a short run of the benchmark."""

import pytest

from benchmarks import oom
from benchmarks.exhausted import run_reclaim
from benchmarks.growth import built_programs
from escra_agent.hierarchy import Hierarchy
from tests.needs import unavailable

pytestmark = pytest.mark.kernel


def test_growth_is_no_kill_while_there_is_memory() -> None:
    """Promises 1 and 2; the same episodes without Escra show that they would have been killed."""
    try:
        result = oom.measure(quick=True, say=lambda line: None)
    except oom.NoCompiler as error:
        unavailable("kernel", str(error))
    for row in result["rates"]:
        assert row["killed_without"] == row["episodes"], result
        assert row["killed_with"] == 0, result
        assert row["stall_ms"]["p50"] <= 10, result
    assert result["exhausted"] == {"killed": ["grower"], "survived": ["left", "right"]}
    assert result["omega_violations"] == 0
    assert result["omega_checks"] > 20, "the kernel's own files were added up all the time"


@pytest.mark.parametrize("mib_per_s", [64, 1024])
def test_what_others_do_not_use_comes_in_time(hierarchy: Hierarchy, mib_per_s: int) -> None:
    """The pool is empty, but not everybody uses what they hold."""
    try:
        with built_programs() as programs:
            outcome, watch = run_reclaim(hierarchy, programs, mib_per_s)
    except oom.NoCompiler as error:
        unavailable("kernel", str(error))
    assert outcome.end == "survived", outcome
    assert watch.violations == 0
