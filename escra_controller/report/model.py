"""What a report says, computed from the points of the history.  Pure.

Cores and bytes; times are unix seconds.  Amounts over the whole report are means over its time: a container
that was there for half of it counts by half.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Series = list[float | None]


@dataclass(frozen=True, slots=True)
class Span:
    """``steps`` equal steps from ``since`` to ``until``."""

    since: float
    until: float
    steps: int

    @property
    def step_s(self) -> float:
        return (self.until - self.since) / self.steps

    @property
    def length_s(self) -> float:
        return self.until - self.since


@dataclass(slots=True)
class Use:
    """One resource of one container.  None in ``limit`` is no limit, in ``original`` as a whole, too."""

    original: float | None
    limit: Series
    used: Series
    would: Series
    peak: float


@dataclass(slots=True)
class ContainerReport:
    """``covered`` says for how many seconds of each step there are data."""

    name: str
    host: str
    observed: bool
    covered: list[float]
    cpu: Use
    memory: Use
    throttled: Series
    would_throttled: Series
    throttled_peak: float
    oom_averted: int
    oom_kills: int

    @property
    def covered_s(self) -> float:
        return sum(self.covered)

    def mean(self, series: Series) -> float | None:
        """Over the time with data; None when there was none of it, or no limit at some time."""
        return _weighted(series, self.covered)

    @property
    def throttled_mean(self) -> float:
        return self.mean(self.throttled) or 0.0


@dataclass(frozen=True, slots=True)
class Saving:
    """Cores or bytes that limits were lower than others would have been; negative is higher.

    ``counted`` containers; the ``unlimited`` have nothing to compare with and are not counted at all.
    """

    amount: float
    counted: int
    unlimited: int


@dataclass(slots=True)
class AppReport:
    name: str
    span: Span
    containers: list[ContainerReport]
    omega_cpu: Series
    omega_memory: Series
    rules: list[tuple[str, str, int]] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)

    @property
    def managed(self) -> list[ContainerReport]:
        return [c for c in self.containers if not c.observed]

    @property
    def observed(self) -> list[ContainerReport]:
        return [c for c in self.containers if c.observed]

    def total(self, resource: str, what: str) -> Series:
        """The sum over all containers that have data in a step, and a limit where it is about limits."""
        uses = [(getattr(c, resource), c.covered) for c in self.containers]
        sums: Series = []
        for step in range(self.span.steps):
            there = [(getattr(use, what)[step], covered[step]) for use, covered in uses if covered[step]]
            known = [(value, covered) for value, covered in there if value is not None]
            # Of those that came or went within a step a part counts.
            longest = max((covered for _, covered in known), default=0.0)
            sums.append(sum(v * c / longest for v, c in known) if known else None)
        return sums

    def throttled(self) -> Series:
        """The mean share of periods cut short over all containers."""
        return [
            _weighted(
                [c.throttled[step] for c in self.containers], [c.covered[step] for c in self.containers]
            )
            for step in range(self.span.steps)
        ]

    def saved(self, resource: str) -> Saving:
        """By managed containers, against the limits that they had before."""
        return self._saving(
            [(c, getattr(c, resource).original, getattr(c, resource).limit) for c in self.managed]
        )

    def would_save(self, resource: str) -> Saving:
        """By observed containers, had they been managed, against the limits that they have."""
        return self._saving(
            [(c, c.mean(getattr(c, resource).limit), getattr(c, resource).would) for c in self.observed]
        )

    def slack(self, resource: str) -> Saving:
        """By which limits were above use."""
        return self._saving(
            [(c, c.mean(getattr(c, resource).limit), getattr(c, resource).used) for c in self.containers]
        )

    def _saving(self, compared: Sequence[tuple[ContainerReport, float | None, Series]]) -> Saving:
        amount, counted, unlimited = 0.0, 0, 0
        for container, before, series in compared:
            after = container.mean(series)
            if before is None or after is None:
                unlimited += 1
                continue
            counted += 1
            amount += (before - after) * container.covered_s / self.span.length_s
        return Saving(amount, counted, unlimited)

    def raised_when_throttled(self) -> list[ContainerReport]:
        """Observed containers that were throttled while they would have had more."""
        return [
            c
            for c in self.observed
            if any(
                throttled and limit is not None and would is not None and would > limit
                for throttled, limit, would in zip(c.throttled, c.cpu.limit, c.cpu.would, strict=True)
            )
        ]

    def movers(self, most: int) -> list[ContainerReport]:
        """Those whose limits moved the furthest, or would have: by what share of the application's move."""
        cpu = {id(c): _move(c, c.cpu) for c in self.containers}
        memory = {id(c): _move(c, c.memory) for c in self.containers}
        whole_cpu, whole_memory = sum(cpu.values()) or 1.0, sum(memory.values()) or 1.0

        def share(c: ContainerReport) -> float:
            return cpu[id(c)] / whole_cpu + memory[id(c)] / whole_memory

        moved = [c for c in self.containers if share(c) > 0]
        return sorted(moved, key=lambda c: (-share(c), c.name))[:most]


def container_report(name: str, host: str, points: Iterable[Row], span: Span) -> ContainerReport | None:
    """From the points of one container (``containerhistory.POINT``); None when none is in ``span``."""
    rows = {int(row["step"]): row for row in points}
    kept = {step: row for step, row in rows.items() if 0 <= step < span.steps}
    if not kept:
        return None
    latest = kept[max(kept)]

    def series(key: str, unit: float = 1.0) -> Series:
        values = [kept[step][key] if step in kept else None for step in range(span.steps)]
        return [None if value is None else value / unit for value in values]

    def use(resource: str, unit: str, factor: float) -> Use:
        original = latest[f"{resource}_original_{unit}"]
        return Use(
            original=None if original is None else original / factor,
            limit=series(f"{resource}_limit_{unit}", factor),
            used=series(f"{resource}_used_{unit}", factor),
            would=series(f"would_{resource}_{unit}", factor),
            peak=max(row[f"{resource}_peak_{unit}"] for row in kept.values()) / factor,
        )

    return ContainerReport(
        name=name,
        host=host,
        observed=bool(latest["observed"]),
        covered=[kept[step]["span_s"] if step in kept else 0.0 for step in range(span.steps)],
        cpu=use("cpu", "milli", 1000.0),
        memory=use("memory", "bytes", 1.0),
        throttled=series("throttled_ratio"),
        would_throttled=series("would_throttled"),
        throttled_peak=max(row["throttled_peak"] for row in kept.values()),
        oom_averted=sum(row["oom_averted"] for row in kept.values()),
        oom_kills=sum(row["oom_kills"] for row in kept.values()),
    )


# Rules that tell of trouble come first, in this order; then the largest moves.
_TROUBLE = ("oom-kill", "denied", "refused")


def most_important(decisions: Iterable[Row], most: int) -> list[Row]:
    """The latest troubles (half of them at most), then the largest moves by share, one per container and
    resource; newest last."""
    rows = list(decisions)
    trouble = [row for row in rows if row["rule"] in _TROUBLE]
    trouble.sort(key=lambda row: (_TROUBLE.index(row["rule"]), -row["at"]))
    chosen = trouble[: most // 2]
    seen: set[tuple[str, str, str]] = set()
    for row in sorted((row for row in rows if row["rule"] not in _TROUBLE), key=_moved, reverse=True):
        about = (row["container"], row["host"], row["resource"])
        if len(chosen) < most and about not in seen and _moved(row) > 0:
            seen.add(about)
            chosen.append(row)
    return sorted(chosen, key=lambda row: float(row["at"]))


def _moved(row: Row) -> float:
    unit = "cores" if row["resource"] == "cpu" else "bytes"
    before, after = row[f"before_{unit}"], row[f"after_{unit}"]
    if not before or not after:
        return 0.0
    return float(max(before, after) / min(before, after) - 1)


def _move(container: ContainerReport, use: Use) -> float:
    limits = use.would if container.observed else use.limit
    known = [limit for limit in limits if limit is not None]
    return max(known) - min(known) if known else 0.0


def _weighted(series: Series, weights: Sequence[float]) -> float | None:
    pairs = [(value, weight) for value, weight in zip(series, weights, strict=True) if weight]
    if not pairs or any(value is None for value, _ in pairs):
        return None
    return sum((value or 0.0) * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
