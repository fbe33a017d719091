"""One repetition: an application under a policy and a load, from its start to its end."""

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import msgspec
import psutil

from benchmarks.compare.applications import Application, Design, Place
from benchmarks.compare.generator import PATIENCE_S, Job, Outcome
from benchmarks.compare.observer import Observed, Observer, processes_cpu_s
from benchmarks.compare.rawcgroups import ROOT
from benchmarks.compare.regimes import Profile, omega_of, regime
from benchmarks.compare.schedules import Workload
from benchmarks.numbers import percentile
from benchmarks.pair import Pair

# Before anything is counted; a repetition that is shorter has as much.
WARM_S = 3.0
LEAD_S = 0.3
# A repetition is noisy, and done again once, when others used more than this of the machine, or when
# the generator could not keep to its plan.
STRANGERS_CORES = 0.15
LATE_MS = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What else went on: others' use and stolen time in cores, the load average, the generator's own use."""

    strangers_cores: float
    steal_cores: float
    load_average: float
    generator_cores: float
    daemons_cores: float


@dataclass(frozen=True, slots=True)
class Repetition:
    seconds: float
    outcome: Outcome
    observed: Observed
    machine: Machine
    writes_per_s: float

    @property
    def noise(self) -> str:
        """Why it should be done again; empty when it need not."""
        strangers = self.machine.strangers_cores + self.machine.steal_cores
        if strangers > STRANGERS_CORES:
            return f"others used {strangers:.2f} cores"
        if (late_ms := percentile(self.outcome.late_ms, 99)) > LATE_MS:
            return f"the generator was {late_ms:.1f} ms late"
        return ""

    def metrics(self) -> dict[str, float]:
        """What the cells are made of.  A request that failed took at least as long as who asked waited."""
        latencies = [*self.outcome.latencies_ms, *[PATIENCE_S * 1000] * self.outcome.failed]
        series = list(self.observed.series.values())
        cpu_slack, memory_slack, own_slack = [], [], []
        for n in range(len(self.observed.times_s)):
            cpu_slack.append(sum(s.limit_cores[n] - s.used_cores[n] for s in series))
            memory_slack.append(sum(s.limit_bytes[n] - s.used_bytes[n] for s in series) / 2**20)
            own_slack += [s.limit_cores[n] - s.used_cores[n] for s in series]
        used = [sum(s.used_cores[n] for s in series) for n in range(len(self.observed.times_s))]
        named = {
            "throughput_rps": len(self.outcome.latencies_ms) / self.seconds,
            "offered_rps": len(latencies) / self.seconds,
            "p50_ms": percentile(latencies, 50),
            "p99_ms": percentile(latencies, 99),
            "p999_ms": percentile(latencies, 99.9),
            "slack_cores_p50": percentile(cpu_slack, 50),
            "slack_cores_p99": percentile(cpu_slack, 99),
            "container_slack_cores_p50": percentile(own_slack, 50),
            "container_slack_cores_p99": percentile(own_slack, 99),
            "slack_mib_p50": percentile(memory_slack, 50),
            "slack_mib_p99": percentile(memory_slack, 99),
            "used_cores": sum(used) / len(used),
            "throttled_share": self.observed.throttled_share,
            "omega_use_ratio": self.observed.watched.use_ratio,
            "omega_use_ratio_explained": self.observed.watched.use_ratio_explained,
            "writes_per_s": self.writes_per_s,
            "daemons_cores": self.machine.daemons_cores,
            "late_ms_p99": percentile(self.outcome.late_ms, 99),
        }
        return {name: value for name, value in named.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class Load:
    workload: Workload
    rate: float
    seconds: float
    seed: int


def repeat(design: Design, place: Place, policy: str, profile: Profile, load: Load) -> Repetition:
    """One run of ``policy``."""
    with (
        place.running(design) as application,
        regime(policy, application, profile) as pair,
    ):
        observer = Observer(application, omega_of(policy, profile), around=policy == "oracle")
        return measured(application, observer, load, pair)


def measured(application: Application, observer: Observer, load: Load, pair: Pair | None) -> Repetition:
    """The load itself: what is in force stays in force."""
    warm_s = min(WARM_S, load.seconds)
    job = Job(
        application.design, load.workload, application.entry, load.rate, warm_s, load.seconds, load.seed
    )
    daemons = [process.pid for process in pair.processes.values()] if pair else []
    with _generator(job) as generator:
        start = time.monotonic() + LEAD_S
        print(start, file=_stream(generator.stdin), flush=True)
        time.sleep(max(0.0, start + warm_s - time.monotonic()))
        before = _Machine(application, [*daemons], generator.pid, pair)
        with observer:
            time.sleep(max(0.0, start + warm_s + load.seconds - time.monotonic()))
        machine, writes_per_s = before.since()
        said, _ = generator.communicate(timeout=PATIENCE_S + 30)
    if generator.returncode:
        raise RuntimeError(f"the generator ended with status {generator.returncode}")
    return Repetition(
        load.seconds, msgspec.json.decode(said, type=Outcome), observer.observed, machine, writes_per_s
    )


@contextmanager
def _generator(job: Job) -> Iterator[subprocess.Popen[str]]:
    """It goes before everybody else: it stands for clients on machines of their own."""
    text = msgspec.json.encode(job).decode()
    with subprocess.Popen(
        ["nice", "-n", "-15", sys.executable, "-m", "benchmarks.compare.generator", text],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _stream(process.stdout).readline()
            yield process
        finally:
            process.kill()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # both are pipes
    return stream


class _Machine:
    """What ran on this machine since it was made, and who it was."""

    def __init__(
        self, application: Application, daemons: list[int], generator: int, pair: Pair | None
    ) -> None:
        self._application = application
        self._daemons = daemons
        self._generator = generator
        self._pair = pair
        self._at = time.monotonic()
        self._before = self._now()

    def _now(self) -> tuple[float, float, float, float, float, float, int]:
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        opened = self._application.parent.open()
        services = opened.read().usage_usec / 1e6
        opened.close()
        own = time.process_time()
        writes = self._pair.ask("agents")[0]["writes"] if self._pair else 0
        generator, daemons = processes_cpu_s([self._generator]), processes_cpu_s(self._daemons)
        return busy, times.steal, services, own, generator, daemons, writes

    def since(self) -> tuple[Machine, float]:
        """And the limits written per second."""
        seconds = time.monotonic() - self._at
        grown = [b - a for a, b in zip(self._before, self._now(), strict=True)]
        busy, steal, services, own, generator, daemons, writes = (each / seconds for each in grown)
        strangers = max(0.0, busy - services - own - generator - daemons)
        machine = Machine(strangers, steal, psutil.getloadavg()[0], generator, daemons)
        return machine, writes
