"""A recording under other rules: the production engine over imagined kernels, beside what happened.  Pure.

The same recording and settings give the same numbers, always.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from escra_common.messages import Container, CpuLimit, Sample
from escra_controller.demand import IDLE_MILLI, Demand
from escra_controller.events import (
    AgentJoined,
    AppResized,
    AppsConfigured,
    AppSpec,
    ContainerAppeared,
    ContainerGone,
    Event,
    LimitsApplied,
    MemoryApplied,
    MemoryArrived,
    SamplesArrived,
    TasksKilled,
    Ticked,
)
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings
from escra_controller.recording import Record
from escra_controller.state import MemberKey, charge_millicores, limit_millicores
from escra_controller.whatif import WhatIf

Row = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """What a run comes to.  Slack is what is allocated and not used, summed over containers, at each tick.

    ``averted`` and ``violations`` are not known of what really happened.
    """

    throttled_s: float = 0.0
    active_s: float = 0.0
    slack_milli: list[int] = field(default_factory=list)
    slack_bytes: list[int] = field(default_factory=list)
    most_milli: int = 0
    most_bytes: int = 0
    changes: int = 0
    kills: int = 0
    averted: int | None = None
    violations: int | None = None

    def worked(self, demand: Demand, sample: Sample, now: float) -> None:
        interval = demand.observe(sample, now)
        if interval is not None and (interval.used >= IDLE_MILLI or interval.throttled):
            self.active_s += interval.end - interval.start
            self.throttled_s += interval.throttled * (interval.end - interval.start)

    def row(self, name: str) -> Row:
        return {
            "name": name,
            "throttled_ratio": round(self.throttled_s / self.active_s, 4) if self.active_s else 0.0,
            "slack_mean_cores": _mean(self.slack_milli, 1000, 3),
            "slack_p99_cores": _p99(self.slack_milli, 1000, 3),
            "slack_mean_bytes": _mean(self.slack_bytes, 1, None),
            "slack_p99_bytes": _p99(self.slack_bytes, 1, None),
            "most_allocated_cores": self.most_milli / 1000 if self.slack_milli else None,
            "most_allocated_bytes": self.most_bytes if self.slack_bytes else None,
            "limit_changes": self.changes,
            "oom_kills": self.kills,
            "oom_averted": self.averted,
            "omega_violations": self.violations,
        }


def _mean(values: Sequence[int], unit: int, digits: int | None) -> float | int | None:
    return round(sum(values) / len(values) / unit, digits) if values else None


def _p99(values: Sequence[int], unit: int, digits: int | None) -> float | int | None:
    return round(sorted(values)[ceil(0.99 * len(values)) - 1] / unit, digits) if values else None


@dataclass(slots=True)
class _Held:
    """One container in a run: its limits, None is none, and what it uses."""

    app: str
    cpu: int | None = None
    memory: int | None = None
    used_bytes: int = 0
    demand: Demand = field(default_factory=Demand)


class _Run:
    def __init__(self) -> None:
        self.tally = Tally()
        self.held: dict[MemberKey, _Held] = {}

    def tick(self) -> None:
        cpu = [h for h in self.held.values() if h.cpu is not None]
        memory = [h for h in self.held.values() if h.memory is not None]
        if cpu:
            self.tally.slack_milli.append(sum(max(0, (h.cpu or 0) - round(h.demand.used())) for h in cpu))
            self.tally.most_milli = max(self.tally.most_milli, sum(h.cpu or 0 for h in cpu))
        if memory:
            self.tally.slack_bytes.append(sum(max(0, (h.memory or 0) - h.used_bytes) for h in memory))
            self.tally.most_bytes = max(self.tally.most_bytes, sum(h.memory or 0 for h in memory))


class Recorded(_Run):
    """What really happened, by the kernels' own words."""

    def hear(self, event: Event, now: float) -> None:
        match event:
            case AgentJoined(hello, containers):
                for key in [key for key in self.held if key.host == hello.host]:
                    del self.held[key]
                for container in containers:
                    self._put(hello.host, container)
            case ContainerAppeared(host, container):
                self._put(host, container)
            case ContainerGone(host, key):
                self.held.pop(MemberKey(host, key), None)
            case SamplesArrived(host, samples):
                for sample in samples:
                    if held := self.held.get(MemberKey(host, sample.key)):
                        self.tally.worked(held.demand, sample, now)
            case MemoryArrived(host, levels):
                for level in levels:
                    if held := self.held.get(MemberKey(host, level.key)):
                        held.used_bytes = level.used_bytes
            case LimitsApplied(host, acks):
                for ack in acks:
                    if held := self.held.get(MemberKey(host, ack.key)):
                        self.tally.changes += held.cpu != limit_millicores(ack.in_force)
                        held.cpu = limit_millicores(ack.in_force)
            case MemoryApplied(host, memory_acks):
                for memory_ack in memory_acks:
                    if held := self.held.get(MemberKey(host, memory_ack.key)):
                        self.tally.changes += held.memory != memory_ack.in_force.max_bytes
                        held.memory = memory_ack.in_force.max_bytes
            case TasksKilled(_, killed):
                self.tally.kills += killed.kills
            case Ticked():
                self.tick()

    def _put(self, host: str, container: Container) -> None:
        held = self.held.setdefault(MemberKey(host, container.key), _Held(container.app))
        held.cpu = limit_millicores(container.in_force)
        held.memory = container.memory.in_force.max_bytes if container.memory else None


@dataclass(frozen=True, slots=True)
class Variant:
    """Other rules; ``cpu`` (millicores) and ``memory`` (bytes) are another Ω for every application."""

    name: str
    policy: Settings
    memory: MemorySettings
    cpu: int | None = None
    memory_omega: int | None = None

    def spec(self, spec: AppSpec) -> AppSpec:
        return replace(
            spec,
            mode="auto",
            cpu=spec.cpu if self.cpu is None else self.cpu,
            memory=spec.memory if self.memory_omega is None else self.memory_omega,
        )


class Replayed(_Run):
    """What would have happened.  Raises Refused when the recording's own floors do not fit into another Ω."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self._variant = variant
        self._whatif = WhatIf(variant.policy, variant.memory, 0.0)
        self.tally.averted = self.tally.violations = 0

    def hear(self, event: Event, now: float) -> None:
        match event:
            case AppsConfigured(apps):
                event = AppsConfigured([self._variant.spec(spec) for spec in apps])
            case AppResized(app, cpu, memory):
                cpu = cpu if self._variant.cpu is None else self._variant.cpu
                memory = memory if self._variant.memory_omega is None else self._variant.memory_omega
                event = AppResized(app, cpu, memory)
            case TasksKilled(host, killed):
                self._killed(MemberKey(host, killed.key), killed.kills)
        decisions = self._whatif.handle(event, now)
        self.tally.changes += sum(d.before != d.after for d in decisions)
        if isinstance(event, SamplesArrived):
            for sample in event.samples:
                self._worked(MemberKey(event.host, sample.key), now)
        self._promises()
        if isinstance(event, Ticked):
            self._look()
            self.tick()

    def end(self) -> None:
        self.tally.kills += sum(c.memory.kills for c in self._whatif.containers.values())

    def _killed(self, key: MemberKey, kills: int) -> None:
        """In reality; whether it would have had more than it had then."""
        imagined = self._whatif.containers.get(key)
        if imagined is None:
            return
        limit, real = imagined.memory.limit, imagined.memory.real
        if limit is not None and real is not None and limit > real:
            self.tally.averted = (self.tally.averted or 0) + kills
        elif not imagined.memory.kills:
            self.tally.kills += kills

    def _worked(self, key: MemberKey, now: float) -> None:
        imagined, member = self._whatif.containers.get(key), self._whatif.engine.members.get(key)
        if imagined is None or member is None or (latest := member.demand.latest) is None:
            return
        if latest.end == now and (latest.used >= IDLE_MILLI or latest.throttled):
            self.tally.active_s += latest.end - latest.start
            self.tally.throttled_s += latest.throttled * (latest.end - latest.start)

    def _look(self) -> None:
        """The limits as they would be, and those that nobody would manage as they are."""
        self.held = {}
        for key, imagined in self._whatif.containers.items():
            member, limit = self._whatif.engine.members[key], imagined.cpu.limit or imagined.cpu.real
            memory = imagined.memory.real if imagined.memory.limit is None else imagined.memory.limit
            level = member.memory.level
            self.held[key] = _Held(
                member.info.app,
                limit_millicores(limit),
                memory,
                level.used_bytes if level else 0,
                member.demand,
            )

    def _promises(self) -> None:
        """Σ of what the kernels would hold against Ω."""
        for app in self._whatif.engine.apps.values():
            cpu = sum(_charge(c.cpu.limit) for k, c in self._whatif.containers.items() if k in app.members)
            memory = sum(c.memory.limit or 0 for k, c in self._whatif.containers.items() if k in app.members)
            over = cpu > app.spec.cpu or memory > app.spec.memory
            self.tally.violations = (self.tally.violations or 0) + over


def _charge(limit: CpuLimit | None) -> int:
    return 0 if limit is None else charge_millicores(limit) or 0


def compare(records: Sequence[Record], variants: Iterable[Variant]) -> list[Row]:
    """A row for the recorded run, then one for each variant."""
    recorded = Recorded()
    for each in records:
        recorded.hear(each.event, each.at)
    rows = [recorded.tally.row("recorded")]
    for variant in variants:
        run = Replayed(variant)
        for each in records:
            run.hear(each.event, each.at)
        run.end()
        rows.append(run.tally.row(variant.name))
    return rows


def summary(records: Sequence[Record], specs: Mapping[str, AppSpec]) -> Row:
    containers = {
        (each.event.hello.host, c.key)
        for each in records
        if isinstance(each.event, AgentJoined)
        for c in each.event.containers
    } | {(r.event.host, r.event.container.key) for r in records if isinstance(r.event, ContainerAppeared)}
    return {
        "seconds": round(records[-1].at - records[0].at, 3) if records else 0.0,
        "events": len(records),
        "apps": sorted(specs),
        "containers": len(containers),
    }
