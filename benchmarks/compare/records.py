"""What one repetition leaves on disk: enough to draw from."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.compare.cell import Repetition
from benchmarks.compare.schedules import Workload


class Series(msgspec.Struct, frozen=True):
    """As the observer's; None where there is no limit."""

    limit_cores: list[float | None]
    used_cores: list[float]


class Record(msgspec.Struct, frozen=True):
    """``metrics`` are those of ``Repetition.metrics``, ``noise`` why it should have been done again."""

    policy: str
    workload: Workload
    application: str
    repetition: int
    seconds: float
    noise: str
    load_average: float
    strangers_cores: float
    steal_cores: float
    generator_cores: float
    metrics: dict[str, float]
    latencies_ms: list[float]
    failed: int
    times_s: list[float]
    series: dict[str, Series]
    examples: list[str]

    @classmethod
    def of(
        cls, policy: str, workload: Workload, application: str, repetition: int, result: Repetition
    ) -> "Record":
        return cls(
            policy,
            workload,
            application,
            repetition,
            result.seconds,
            result.noise,
            result.machine.load_average,
            result.machine.strangers_cores,
            result.machine.steal_cores,
            result.machine.generator_cores,
            result.metrics(),
            result.outcome.latencies_ms,
            result.outcome.failed,
            result.observed.times_s,
            {name: Series([*s.limit_cores], s.used_cores) for name, s in result.observed.series.items()},
            result.observed.watched.examples,
        )

    @property
    def cell(self) -> tuple[str, str]:
        return self.application, self.workload


def write_record(folder: Path, record: Record) -> None:
    """Infinite limits become null."""
    name = f"{record.application}-{record.workload}-{record.policy}-{record.repetition}.json"
    (folder / "records").mkdir(exist_ok=True)
    (folder / "records" / name).write_bytes(msgspec.json.encode(record))


def read_records(folder: Path) -> Iterator[Record]:
    for path in sorted((folder / "records").glob("*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=Record)
