"""Runs a plan, says how far it is, and keeps what comes of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compare.applications import Place
from benchmarks.compare.cell import Load, Repetition, repeat
from benchmarks.compare.plan import Plan, order
from benchmarks.compare.profiling import profile
from benchmarks.compare.records import Record, write_record
from benchmarks.compare.regimes import Profile, omega_of
from benchmarks.compare.schedules import Workload
from benchmarks.compare.summary import summarised

Say = Callable[[str], None]


@dataclass(slots=True)
class Progress:
    total: int
    say: Say
    done: int = 0
    began_at: float = field(default_factory=time.monotonic)

    def step(self, what: str, outcome: str) -> None:
        self.done += 1
        each_s = (time.monotonic() - self.began_at) / self.done
        left_s = (self.total - self.done) * each_s
        self.say(f"{self.done}/{self.total} {what}: {outcome}; {left_s / 60:.0f} min left")


@dataclass(slots=True)
class Cell:
    """All repetitions of one policy under one load; ``noisy`` are those that were so again."""

    policy: str
    workload: Workload
    application: str
    repetitions: list[Repetition] = field(default_factory=list)
    redone: int = 0
    noisy: int = 0

    def row(self, promised: bool) -> dict[str, Any]:
        """``omega_violations`` is None where nothing was promised."""
        violations = sum(r.observed.violations for r in self.repetitions)
        metrics = summarised([r.metrics() for r in self.repetitions])
        if not promised:
            metrics = {name: value for name, value in metrics.items() if not name.startswith("omega_")}
        return {
            "policy": self.policy,
            "workload": self.workload,
            "application": self.application,
            **metrics,
            "omega_violations": violations if promised else None,
            "omega_checks": sum(r.observed.watched.checks for r in self.repetitions),
            "oom_kills": sum(r.observed.oom_kills for r in self.repetitions),
            "failed": sum(r.outcome.failed for r in self.repetitions),
            "repetitions": len(self.repetitions),
            "redone": self.redone,
            "noisy": self.noisy,
        }


def run(plan: Plan, folder: Path, place: Place, say: Say) -> dict[str, Any]:
    """The profiles and the rows of all cells; each repetition leaves its record in ``folder``."""
    progress = Progress(plan.total, say)
    profiles: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for name in plan.applications:
        for workload in plan.workloads:
            say(f"{name} {workload}: the profile, without limits")
            measured = profile(place.designs[name], place, workload, plan.profile_seconds)
            profiles.append(_profile_row(name, workload, measured))
            say(f"{name} {workload}: {measured.rate:.1f} requests/s use 70 % of Ω")
            cells = {policy: Cell(policy, workload, name) for policy in plan.policies}
            for repetition, policy in order(plan.policies, plan.repetitions, seed=len(rows)):
                load = Load(workload, measured.rate, plan.seconds, seed=repetition)
                cell = cells[policy]
                result = _quiet(cell, place, measured, load, say)
                cell.repetitions.append(result)
                write_record(folder, Record.of(policy, workload, name, repetition, result))
                metrics = result.metrics()
                progress.step(
                    f"{name} {workload} {policy}",
                    f"{metrics['throughput_rps']:.1f} of {metrics['offered_rps']:.1f} requests/s, "
                    f"p50 {metrics['p50_ms']:.0f} ms, p99 {metrics['p99_ms']:.0f} ms",
                )
            rows += [cell.row(omega_of(policy, measured) is not None) for policy, cell in cells.items()]
    return {"profiles": profiles, "cells": rows}


def _quiet(cell: Cell, place: Place, measured: Profile, load: Load, say: Say) -> Repetition:
    """A repetition; a noisy one is done again, once, and what comes then is kept."""
    result = repeat(place.designs[cell.application], place, cell.policy, measured, load)
    if not result.noise:
        return result
    say(f"{cell.policy}: {result.noise}; once more")
    cell.redone += 1
    result = repeat(place.designs[cell.application], place, cell.policy, measured, load)
    cell.noisy += bool(result.noise)
    return result


def _profile_row(name: str, workload: str, measured: Profile) -> dict[str, Any]:
    return {
        "application": name,
        "workload": workload,
        "rate_rps": round(measured.rate, 2),
        "omega_cores": measured.omega_cores,
        "omega_bytes": measured.omega_bytes,
        "services": {
            service: {
                "used_cores": round(measured.used_cores[service], 4),
                "limit_cores_1x": round(measured.cores(service), 4),
                "peak_bytes": measured.peak_bytes[service],
            }
            for service in measured.used_cores
        },
    }
