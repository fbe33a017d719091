"""``python -m benchmarks compare --out DIR``: runs a plan; makes results.json, tables and pictures of it."""

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import plots, report
from benchmarks.compare import serverless as functions
from benchmarks.compare.cell import LATE_MS, STRANGERS_CORES, WARM_S
from benchmarks.compare.generator import PATIENCE_S
from benchmarks.compare.plan import Plan
from benchmarks.compare.profiling import OMEGA_CORES
from benchmarks.compare.run import run
from benchmarks.compare.schedules import Workload
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import controllers_enabled


def measure(
    quick: bool,
    say: Callable[[str], None],
    out: Path,
    seconds: float | None = None,
    repetitions: int | None = None,
    policies: Sequence[str] = (),
    workloads: Sequence[Workload] = (),
    applications: Sequence[str] = (),
    serverless: bool = False,
) -> dict[str, Any]:
    """Everything also goes to the folder ``out``: results.json, tables, records, pictures."""
    if serverless:
        if workloads:
            raise SystemExit("--serverless has one pattern of invocations; leave out --workloads")
        return functions.measure(quick, say, out, seconds, repetitions, applications, policies)
    plan = Plan.quick() if quick else Plan()
    plan = Plan(
        policies or plan.policies,
        workloads or plan.workloads,
        applications or plan.applications,
        repetitions or plan.repetitions,
        seconds or plan.seconds,
    )
    plan.check()
    out.mkdir(parents=True, exist_ok=True)
    if any((out / "records").glob("*.json")):
        raise SystemExit(f"{out} has the records of another comparison; name an empty folder")
    if left_out := plan.left_out():
        say(f"left out of a full run: {'; '.join(left_out)}")
    if not plots.available():
        say("matplotlib is not installed, so there will be no pictures: pip install --group bench")
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy):
        result = {
            "quick": quick,
            "seconds": plan.seconds,
            "warm_s": WARM_S,
            "repetitions": plan.repetitions,
            "omega_cores": OMEGA_CORES,
            "patience_ms": PATIENCE_S * 1000,
            "noise_rule": f"done again once when others used more than {STRANGERS_CORES:g} cores, stolen "
            f"time included, or the generator's p99 lateness was above {LATE_MS:g} ms",
            "left_out": left_out,
            "machine": {
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "cgroups": hierarchy.version,
            },
            **run(plan, out, hierarchy, say),
        }
    report.write(out, result)
    if plots.available():
        result["pictures"] = [path.name for path in plots.draw(out)]
    return result
