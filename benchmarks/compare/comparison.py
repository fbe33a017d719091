"""``python -m benchmarks compare --out DIR``: runs a plan; makes results.json, tables and pictures of it."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.compare import plots, report
from benchmarks.compare import serverless as functions
from benchmarks.compare.applications import Place
from benchmarks.compare.cell import LATE_MS, STRANGERS_CORES, WARM_S
from benchmarks.compare.dockerplace import docker_place
from benchmarks.compare.generator import PATIENCE_S
from benchmarks.compare.plan import Plan
from benchmarks.compare.profiling import OMEGA_CORES
from benchmarks.compare.rawcgroups import RawCgroups
from benchmarks.compare.run import run
from benchmarks.compare.schedules import Workload
from escra_agent.hierarchy import Hierarchy
from tests import docker_engine
from tests.debian_image import CannotBuild
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
    docker: bool = False,
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
    with controllers_enabled(hierarchy), _place(docker, hierarchy, say) as place:
        result = {
            "quick": quick,
            "place": place.name,
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
            **run(plan, out, place, say),
        }
    report.write(out, result)
    if plots.available():
        result["pictures"] = [path.name for path in plots.draw(out)]
    return result


@contextmanager
def _place(docker: bool, hierarchy: Hierarchy, say: Callable[[str], None]) -> Iterator[Place]:
    if not docker:
        yield RawCgroups(hierarchy)
        return
    if reason := docker_engine.whats_missing():
        raise SystemExit(f"--docker needs a Docker Engine of its own: {reason}")
    say("an engine with images from Debian's packages")
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(docker_engine.running_engine("overlay2"))
            place = stack.enter_context(docker_place(hierarchy, engine))
        except (CannotBuild, docker_engine.EngineTrouble) as error:
            raise SystemExit(f"--docker needs an engine with images made here: {error}") from error
        yield place
