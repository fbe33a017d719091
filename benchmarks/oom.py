"""How many OOM kills are averted, and what a growing program notices of it.  (Promises 1 and 2.)

An episode: a program in a fresh cgroup with a limit of 64 MiB holds 48 MiB and then grows past the limit
at a given rate (grow.c, grow.py).  The same episodes run under the kernel alone (``killed_without``) and
with Escra, whose pool has memory all the time (``killed_with``: all that did not come to their end).
Without any limit each variety runs once more: what this machine can give.

``stall_ms``: the stalls of more than 1 ms of all programs that survived; 0 when there was none.

``event_to_limit_ms``: from the kernel's notice to the raised limit in the kernel, as the decisions tell.

``exhausted``: who dies when nobody has memory left and one container grows.

``omega_violations``: how often the limits in the kernel's files summed to more than Ω, looked at every tick.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.exhausted import run_dry
from benchmarks.growth import VARIETIES, NoCompiler, Outcome, built_programs, growths
from benchmarks.numbers import summary_ms
from benchmarks.stage import Stage
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import controllers_enabled

__all__ = ["NoCompiler", "measure"]

RATES_MIB_S = (16, 128, 1024)
NO_STALLS = {"p50": 0.0, "p99": 0.0, "max": 0.0, "events": 0}


def measure(
    quick: bool,
    say: Callable[[str], None],
    episodes: int = 5 * len(VARIETIES),
    rates: Sequence[int] = (),
) -> dict[str, Any]:
    """``episodes`` is for each rate; ``quick`` is one of each variety, and not at the slowest rate."""
    episodes = len(VARIETIES) if quick else episodes
    rates = rates or RATES_MIB_S[quick:]
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy), built_programs() as programs:
        stage = Stage(hierarchy, programs)
        unlimited, without, with_escra = {}, {}, {}
        for rate in rates:
            say(f"{rate} MiB/s without a limit: {len(VARIETIES)} episodes")
            unlimited[rate] = stage.play(growths(rate, len(VARIETIES)), limited=False)
            say(f"{rate} MiB/s, the kernel alone: {episodes} episodes")
            without[rate] = stage.play(growths(rate, episodes))
        with stage.managed() as watch:
            for rate in rates:
                say(f"{rate} MiB/s, Escra: {episodes} episodes")
                with_escra[rate] = stage.play(growths(rate, episodes))
        say("an exhausted pool")
        exhausted, dry_watch = run_dry(hierarchy, programs)
    if not stage.answers_s:
        raise SystemExit("no decision had an answer_ms: event_to_limit_ms was not measured")
    return {
        "cgroup": "v1" if "memory" in hierarchy.mounts else "v2",
        "rates": [_row(rate, unlimited[rate], without[rate], with_escra[rate]) for rate in rates],
        "event_to_limit_ms": summary_ms(stage.answers_s),
        "exhausted": exhausted,
        "omega_violations": watch.violations + dry_watch.violations,
        "omega_checks": watch.checks + dry_watch.checks,
    }


def _row(
    mib_per_s: int, unlimited: list[Outcome], without: list[Outcome], with_escra: list[Outcome]
) -> dict[str, Any]:
    ends = Counter(outcome.end for outcome in with_escra)
    return {
        "mib_per_s": mib_per_s,
        "episodes": len(with_escra),
        "killed_without": sum(outcome.end == "killed" for outcome in without),
        "killed_with": len(with_escra) - ends["survived"],
        "stall_ms": _stalls_ms(with_escra),
        "ends": dict(ends),
        "unlimited": {
            "mib_per_s": {program: _slowest_mib_per_s(unlimited, program) for program in ("c", "python")},
            "stall_ms": _stalls_ms(unlimited),
        },
    }


def _stalls_ms(outcomes: list[Outcome]) -> dict[str, float | int]:
    stalls_s = [ms / 1000 for outcome in outcomes for ms in outcome.stalls_ms]
    return summary_ms(stalls_s) if stalls_s else NO_STALLS


def _slowest_mib_per_s(outcomes: list[Outcome], program: str) -> float:
    """Of the steady ones; the other shapes rest in between."""
    seconds = [o.seconds for o in outcomes if (o.growth.program, o.growth.shape) == (program, "steady")]
    if not all(seconds):
        raise SystemExit(f"without a limit a program did not come to its end: {outcomes}")
    return round(outcomes[0].growth.amount_mib / max(seconds), 1)
