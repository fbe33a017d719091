"""``python -m benchmarks compare --serverless --out DIR``: functions in short-lived containers.

The same invocations go to containers with the usual fixed allotment, and to containers that start with the
same and take part in an application of Escra's.  Its Ω is what the allotments of a full pool sum to.
"""

import csv
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.compare import plots, serverlessplot, serverlessreport
from benchmarks.compare.cell import LATE_MS, STRANGERS_CORES
from benchmarks.compare.functionhost import SETTINGS, Host, Run, hosting, photograph, repeat
from benchmarks.compare.invocations import FUNCTIONS, Function, Sample, arrivals, ratios
from benchmarks.compare.invoker import PATIENCE_S
from benchmarks.compare.plan import order
from benchmarks.compare.run import Progress
from benchmarks.compare.summary import summarised
from escra_agent.hierarchy import Hierarchy
from tests import docker_engine
from tests.debian_image import CannotBuild
from tests.kernel_cgroups import controllers_enabled

Say = Callable[[str], None]
T = TypeVar("T")
SECONDS, REPETITIONS = 40.0, 5
QUICK_SECONDS, QUICK_REPETITIONS = 12.0, 2


@dataclass(slots=True)
class Cell:
    """All repetitions of a function under one regime; ``noisy`` are those that were so again."""

    function: Function
    regime: str
    runs: list[Run] = field(default_factory=list)
    redone: int = 0
    noisy: int = 0

    def row(self) -> dict[str, Any]:
        return {
            "function": self.function.name,
            "policy": self.regime,
            **summarised([run.metrics() for run in self.runs]),
            "omega_violations": sum(run.seen.violations for run in self.runs),
            "omega_checks": sum(run.seen.checks for run in self.runs),
            "oom_kills": sum(run.oom_kills for run in self.runs),
            "lost": sum(run.lost for run in self.runs),
            "repetitions": len(self.runs),
            "redone": self.redone,
            "noisy": self.noisy,
        }


def measure(
    quick: bool,
    say: Say,
    out: Path,
    seconds: float | None = None,
    repetitions: int | None = None,
    functions: Sequence[str] = (),
    policies: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything also goes to the folder ``out``: serverless.json, tables, samples, a picture.

    Fixed limits are measured whatever ``policies`` say: all others are compared with them.
    """
    seconds = seconds or (QUICK_SECONDS if quick else SECONDS)
    repetitions = repetitions or (QUICK_REPETITIONS if quick else REPETITIONS)
    chosen = _named({function.name: function for function in FUNCTIONS}, functions)
    regimes = ["fixed", *_named({name: name for name in SETTINGS}, [p for p in policies if p != "fixed"])]
    out.mkdir(parents=True, exist_ok=True)
    if not plots.available():
        say("matplotlib is not installed, so there will be no picture: pip install --group bench")
    hierarchy = Hierarchy.detect()
    progress = Progress(len(chosen) * len(regimes) * repetitions, say)
    with controllers_enabled(hierarchy), _host(hierarchy, say) as host:
        payload = photograph(host.docker)
        measured: dict[str, dict[str, Cell]] = {}
        for function in chosen:
            planned = [arrivals(function, seconds, seed) for seed in range(repetitions)]
            measured[function.name] = _repetitions(host, function, regimes, planned, payload, progress)
    cells = [cell for of_one in measured.values() for cell in of_one.values()]
    result = {
        "quick": quick,
        "seconds": seconds,
        "repetitions": repetitions,
        "patience_ms": PATIENCE_S * 1000,
        "noise_rule": f"done again once when others used more than {STRANGERS_CORES:g} cores, stolen time "
        f"included, or invocations were made more than {LATE_MS:g} ms late at p99",
        "settings": {name: {"controller": c, "agent": a} for name, (c, a) in SETTINGS.items()},
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "cgroups": hierarchy.version},
        "functions": [asdict(f) | {"about": f.about, "omega_cores": f.omega_cores} for f in chosen],
        "cells": [cell.row() for cell in cells],
        "ratios": [row for of_one in measured.values() for row in _ratios(of_one)],
    }
    serverlessreport.write(out, result)
    _write_samples(out / "serverless-samples.csv", cells)
    if plots.available():
        first = {
            name: {regime: cell.runs[0].seen.samples for regime, cell in of_one.items()}
            for name, of_one in measured.items()
        }
        result["pictures"] = [serverlessplot.draw(out / "serverless.png", first).name]
    return result


@contextmanager
def _host(hierarchy: Hierarchy, say: Say) -> Iterator[Host]:
    if reason := docker_engine.whats_missing():
        raise SystemExit(f"--serverless needs a Docker Engine of its own: {reason}")
    try:
        with hosting(hierarchy, say) as host:
            yield host
    except CannotBuild as error:
        raise SystemExit(f"no image for --serverless: {error}") from error


def _named(known: Mapping[str, T], names: Sequence[str]) -> list[T]:
    """All of them, where none is named; raises SystemExit for a name that there is not."""
    if strange := [name for name in names if name not in known]:
        raise SystemExit(f"there is no {', '.join(strange)}; there are {', '.join(known)}")
    return [known[name] for name in names or known]


def _repetitions(
    host: Host,
    function: Function,
    regimes: Sequence[str],
    planned: Sequence[Sequence[float]],
    payload: bytes,
    progress: Progress,
) -> dict[str, Cell]:
    """By regime; ``planned`` are the invocations of each repetition."""
    cells = {regime: Cell(function, regime) for regime in regimes}
    for repetition, regime in order(regimes, len(planned), seed=1):
        cell = cells[regime]
        run = repeat(host, function, regime, planned[repetition], payload)
        if run.noise:
            progress.say(f"{function.name} {regime}: {run.noise}; once more")
            cell.redone += 1
            run = repeat(host, function, regime, planned[repetition], payload)
            cell.noisy += bool(run.noise)
        cell.runs.append(run)
        seen = run.metrics()
        progress.step(
            f"{function.name} {regime}",
            f"limits {seen['limit_cores']:.2f} cores, {seen['limit_mib']:.0f} MiB, "
            f"p50 {seen['p50_ms']:.0f} ms, p99 {seen['p99_ms']:.0f} ms",
        )
    return cells


def _ratios(cells: Mapping[str, Cell]) -> Iterator[dict[str, Any]]:
    """Of every regime to the fixed limits, repetition by repetition."""
    fixed = cells["fixed"]
    for regime, cell in cells.items():
        if cell is not fixed:
            pairs = zip(cell.runs, fixed.runs, strict=True)
            found = summarised([ratios(run.metrics(), base.metrics()) for run, base in pairs])
            yield {"function": cell.function.name, "policy": regime, **found}


def _write_samples(path: Path, cells: Iterable[Cell]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["function", "policy", "repetition", *Sample.__slots__])
        for cell in cells:
            for number, run in enumerate(cell.runs):
                key = [cell.function.name, cell.regime, number]
                writer.writerows([*key, *asdict(sample).values()] for sample in run.seen.samples)
