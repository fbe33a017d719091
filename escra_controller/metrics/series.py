"""The engine's state as families of series: names, labels, values.  Pure.

The names are a contract like the keys of ``--json``: with the unit in the name, only ever added to.  A value
that is not known (a container without a limit, the use of one whose host is away) has no sample.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from escra_common.expiry import Expiry
from escra_controller.engine import Engine
from escra_controller.metrics.tally import Tally
from escra_controller.rows import Row
from escra_controller.state import Host

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``samples`` maps the values of ``labels`` to the number.  Counters end in ``_total``."""

    name: str
    kind: Literal["gauge", "counter"]
    text: str
    labels: Labels = ()
    samples: dict[Labels, float] = field(default_factory=dict)


def gauge(name: str, text: str, labels: Labels = (), samples: Mapping[Labels, float] | None = None) -> Family:
    return Family(name, "gauge", text, labels, dict(samples or {}))


def counter(name: str, text: str, labels: Labels, samples: Mapping[Labels, float]) -> Family:
    return Family(name, "counter", text, labels, dict(samples))


@dataclass(frozen=True, slots=True)
class Field:
    """A column of rows that becomes a family; while a container's host is away only ``lasting`` ones hold."""

    name: str
    text: str
    path: tuple[str, ...]
    kind: Literal["gauge", "counter"] = "gauge"
    lasting: bool = False

    def of(self, row: Row) -> float | None:
        value: Any = row
        for step in self.path:
            value = value[step]
        return None if value is None else float(value)


_CONTAINER = (
    Field(
        "escra_container_cpu_limit_cores",
        "CPU limit of the container; no sample: no limit.",
        ("cpu", "limit_cores"),
        lasting=True,
    ),
    Field("escra_container_cpu_used_cores", "CPU in use, the last rate seen.", ("cpu", "used_cores")),
    Field(
        "escra_container_cpu_throttled_ratio",
        "Share of the last CPU periods that were cut short by the limit, 0 to 1.",
        ("cpu", "throttled_ratio"),
    ),
    Field(
        "escra_container_memory_limit_bytes",
        "Memory limit of the container; no sample: no limit.",
        ("memory", "limit_bytes"),
        lasting=True,
    ),
    Field(
        "escra_container_memory_used_bytes", "Memory in use, file cache included.", ("memory", "used_bytes")
    ),
    Field(
        "escra_container_memory_needed_bytes",
        "Memory in use without the file cache that the kernel would drop first.",
        ("memory", "needed_bytes"),
    ),
    Field(
        "escra_container_oom_kills_total",
        "Tasks the kernel killed for want of memory, since the container's cgroup was made.",
        ("oom_kills",),
        "counter",
    ),
)
_APP = (
    Field("escra_app_cpu_limit_cores", "The application's limit.", ("cpu", "limit_cores")),
    Field(
        "escra_app_cpu_allocated_cores",
        "What its containers may hold now, orders under way counted at the larger of old and new.",
        ("cpu", "allocated_cores"),
    ),
    Field(
        "escra_app_cpu_reserved_cores",
        "Kept for hosts that have not come back since a restart.",
        ("cpu", "reserved_cores"),
    ),
    Field("escra_app_cpu_used_cores", "CPU in use by its containers.", ("cpu", "used_cores")),
    Field("escra_app_memory_limit_bytes", "The application's limit.", ("memory", "limit_bytes")),
    Field(
        "escra_app_memory_allocated_bytes",
        "What its containers may hold now, orders under way counted at the larger of old and new.",
        ("memory", "allocated_bytes"),
    ),
    Field(
        "escra_app_memory_reserved_bytes",
        "Kept for hosts that have not come back since a restart.",
        ("memory", "reserved_bytes"),
    ),
    Field("escra_app_memory_used_bytes", "Memory in use by its containers.", ("memory", "used_bytes")),
    Field(
        "escra_oom_averted_total",
        "Memory limits raised because tasks waited at them, or were about to meet them.",
        ("oom_averted",),
        "counter",
    ),
)


def containers(rows: Sequence[Row]) -> Iterator[Family]:
    """From the rows of `escra ps`; of two with the same labels the later one counts."""
    for each in _CONTAINER:
        family = Family(each.name, each.kind, each.text, ("app", "container", "host"))
        for row in rows:
            if (each.lasting or row["state"] != "lost") and (value := each.of(row)) is not None:
                family.samples[row["app"], row["name"], row["host"]] = value
        yield family
    states: dict[Labels, float] = {}
    for row in rows:
        place = (row["app"], row["host"], row["state"])
        states[place] = states.get(place, 0) + 1
    text = "Containers by state, as in `escra ps`."
    yield gauge("escra_containers", text, ("app", "host", "state"), states)


def applications(rows: Sequence[Row]) -> list[Family]:
    """From the rows of `escra apps`."""
    return [
        Family(
            each.name, each.kind, each.text, ("app",), {(row["name"],): each.of(row) or 0.0 for row in rows}
        )
        for each in _APP
    ]


def decisions(tally: Tally) -> list[Family]:
    app = ("app",)
    return [
        counter(
            "escra_limit_changes_total",
            "Limits that moved, by the rule that moved them.",
            ("app", "resource", "reason"),
            tally.changes,
        ),
        counter(
            "escra_limits_refused_total",
            "Limits that a host could not, or would not, put into force.",
            ("app", "resource"),
            tally.refused,
        ),
        counter(
            "escra_memory_denied_total",
            "Requests for memory that were refused; the same one again counts every 10 s.",
            app,
            tally.denied,
        ),
        counter("escra_oom_kills_total", "Tasks killed for want of memory.", app, tally.kills),
    ]


# What agents count, since each of them started.
_TOTALS: tuple[tuple[str, str, Callable[[Host], float]], ...] = (
    (
        "escra_drift_repairs_total",
        "Limits put right after somebody else had written them.",
        lambda host: host.totals.drift_repairs,
    ),
    ("escra_cpu_writes_total", "CPU limits written.", lambda host: host.totals.writes),
    ("escra_memory_writes_total", "Memory limits written.", lambda host: host.totals.memory_writes),
    (
        "escra_refill_cpu_seconds_total",
        "CPU time that our own writes handed out beside the limits.",
        lambda host: host.totals.refill_usec / 1e6,
    ),
    (
        "escra_lent_cpu_seconds_total",
        "CPU time that containers had of the periods of others of their application.",
        lambda host: host.totals.lent_usec / 1e6,
    ),
    (
        "escra_dropped_samples_total",
        "Samples left out because the controller did not keep up.",
        lambda host: host.totals.dropped_samples,
    ),
)


def agents(engine: Engine, now: float, wall: float) -> list[Family]:
    """``wall`` is the unix time at ``now``."""
    hosts = dict(engine.hosts)
    connected: dict[Labels, float] = {(name,): float(host.connected) for name, host in hosts.items()}
    connected |= {(name,): 0.0 for name in engine.absent_hosts()}
    info: dict[Labels, float] = {
        (name, host.hello.software, host.hello.cgroup_version): 1.0
        for name, host in hosts.items()
        if host.connected
    }
    heard: dict[Labels, float] = {(name,): wall - (now - host.heard_at) for name, host in hosts.items()}
    return [
        gauge("escra_agent_connected", "1 while the host's agent is connected.", ("host",), connected),
        gauge("escra_agent_info", "What runs there; always 1.", ("host", "version", "cgroup_version"), info),
        gauge("escra_agent_heard_timestamp_seconds", "When it was last heard.", ("host",), heard),
        *(
            counter(name, text, ("host",), {(host,): read(found) for host, found in hosts.items()})
            for name, text, read in _TOTALS
        ),
    ]


class Ticks(NamedTuple):
    """The controller's own: its host, how many ticks it took, and how many of them were late."""

    host: str
    taken: int
    late: int


def ticks(engine: Engine, own: Ticks) -> list[Family]:
    taken: dict[Labels, float] = {("controller", own.host): own.taken}
    late: dict[Labels, float] = {("controller", own.host): own.late}
    for name, host in engine.hosts.items():
        taken["agent", name] = host.totals.ticks
        late["agent", name] = host.totals.late_ticks
    labels = ("daemon", "host")
    return [
        counter("escra_ticks_total", "Rounds of the 100 ms loops.", labels, taken),
        counter("escra_tick_late_total", "Rounds that began late, or were left out.", labels, late),
    ]


@dataclass(frozen=True, slots=True)
class Standing:
    """The controller's own state.  ``problems``: how many `escra status` names."""

    version: str
    role: str
    epoch: int
    problems: int
    store_ok: bool
    store_dropped: int
    certificates: Sequence[Expiry] = ()


def controller(standing: Standing) -> list[Family]:
    ends: Iterable[tuple[Labels, float]] = (((e.what,), e.not_after) for e in standing.certificates)
    roles = ("leader", "standby", "waiting")
    return [
        gauge("escra_build_info", "Always 1.", ("version",), {(standing.version,): 1.0}),
        gauge(
            "escra_role",
            "1 for the part this controller plays.",
            ("role",),
            {(role,): float(role == standing.role) for role in roles},
        ),
        gauge("escra_epoch", "The number of its leadership.", (), {(): standing.epoch}),
        gauge(
            "escra_problems", "Problems that `escra status` names; 0 is well.", (), {(): standing.problems}
        ),
        gauge(
            "escra_store_ok", "0: what is decided cannot be kept on disk.", (), {(): float(standing.store_ok)}
        ),
        counter(
            "escra_store_dropped_rows_total",
            "Lines of the audit that did not reach the disk.",
            (),
            {(): standing.store_dropped},
        ),
        gauge(
            "escra_certificate_expiry_timestamp_seconds",
            "When a certificate ends: the controller's own, its CAs', and those of connected agents.",
            ("certificate",),
            dict(ends),
        ),
    ]
