"""What an application needs under a load, without limits: the rate that makes 70 % of Ω, and each part."""

import math

from benchmarks.compare.applications import Design, Place
from benchmarks.compare.cell import Load, Repetition, measured
from benchmarks.compare.observer import Observer
from benchmarks.compare.regimes import Profile
from benchmarks.compare.schedules import Workload

# Well below the two processors of a small machine: the load, the daemons and the watching need some, too.
OMEGA_CORES = 1.0
USED_OF_OMEGA = 0.7
FIRST_RATE = 50.0
SEED = 1_000_003


def profile(design: Design, place: Place, workload: Workload, seconds: float) -> Profile:
    """Two runs: a short one for the cost of a request, and one at the rate that comes of it."""
    first = _unlimited(design, place, Load("exp", FIRST_RATE, max(2.0, seconds / 3), SEED))
    rate = _rate(first, FIRST_RATE)
    return profile_of(_unlimited(design, place, Load(workload, rate, seconds, SEED)), rate)


def profile_of(run: Repetition, rate: float) -> Profile:
    """From a run without limits at ``rate``."""
    series = run.observed.series
    return Profile(
        rate=_rate(run, rate),
        used_cores={name: sum(s.used_cores) / len(s.used_cores) for name, s in series.items()},
        samples_milli={name: _second_means(s.used_cores) for name, s in series.items()},
        peak_bytes={name: max(s.used_bytes) for name, s in series.items()},
        omega_cores=OMEGA_CORES,
        used_of_omega=USED_OF_OMEGA,
    )


def _unlimited(design: Design, place: Place, load: Load) -> Repetition:
    with place.running(design) as application:
        return measured(application, Observer(application, None, around=False), load, None)


def _rate(run: Repetition, rate: float) -> float:
    """At which 70 % of Ω is used, from what was used for the requests of this run."""
    metrics = run.metrics()
    used, offered = metrics["used_cores"], metrics["offered_rps"]
    if not math.isfinite(used) or used <= 0 or offered <= 0:
        raise RuntimeError(f"nothing was used at {rate:g} requests a second: the application does not work")
    return USED_OF_OMEGA * OMEGA_CORES / (used / offered)


def _second_means(used_cores: list[float]) -> list[float]:
    """In millicores; what VPA's samples are made of."""
    seconds = [used_cores[n : n + 10] for n in range(0, len(used_cores), 10)]
    return [1000 * sum(second) / len(second) for second in seconds]
