"""A report's sentences and numbers, for the page, the picture and JSON.  Pure."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from escra_common.units import format_bytes
from escra_controller.render import duration, percent
from escra_controller.report.model import AppReport, ContainerReport, Saving, Span


def cores(value: float | None, none: str = "no limit") -> str:
    return none if value is None else f"{value:.2f}"


def size(value: float | None, none: str = "no limit") -> str:
    """
    >>> size(3 << 30), size(None)
    ('3.0 GiB', 'no limit')
    """
    return none if value is None else re.sub(r"([KMGT]?i?B)$", r" \1", format_bytes(round(value)))


def amount(resource: str, value: float) -> str:
    """
    >>> amount("cpu", 3.1), amount("cpu", 1), amount("memory", 1536)
    ('3.1 cores', '1.0 cores', '1.5 KiB')
    """
    if resource == "memory":
        return size(value)
    return f"{value:.1f} cores" if value >= 0.95 else f"{value:.2f} cores"


def when(span: Span) -> str:
    """The time a report is about, in local time."""
    since, until = (datetime.fromtimestamp(at).astimezone() for at in (span.since, span.until))
    day = "%a %Y-%m-%d "
    last = until.strftime("%H:%M:%S" if since.date() == until.date() else f"{day}%H:%M:%S")
    return f"{since.strftime(day + '%H:%M:%S')} to {last} {until.strftime('%Z')} ({duration(span.length_s)})"


def headlines(app: AppReport) -> list[str]:
    """What the report comes to: one sentence about managed containers, one about observed ones."""
    said = []
    if app.managed:
        cpu, memory = app.saved("cpu"), app.saved("memory")
        if parts := _differences(cpu, memory):
            said.append(f"Held {parts} than the limits these containers came with.")
        else:
            said.append("These containers came without limits: there is nothing to compare Escra's with.")
    if app.observed:
        cpu, memory = app.would_save("cpu"), app.would_save("memory")
        parts = _differences(cpu, memory)
        raised = len(app.raised_when_throttled())
        more = f"raised {raised} {'limit' if raised == 1 else 'limits'} that throttled" if raised else ""
        if parts:
            parts = f"held {parts} than the present limits"
        if done := [part for part in (parts, more) if part]:
            said.append(f"Only observed: Escra would have {', and '.join(done)}.")
        else:
            said.append("Only observed: the present limits are no limits, or what Escra would have set, too.")
    return said


def _differences(cpu: Saving, memory: Saving) -> str:
    """
    >>> _differences(Saving(3.12, 4, 0), Saving(2 << 30, 4, 0))
    '3.1 cores and 2.0 GiB less'
    >>> _differences(Saving(1, 1, 0), Saving(-9e9, 1, 0))
    '1.0 cores less and 8.4 GiB more'
    """
    counted = [(r, s.amount) for r, s in (("cpu", cpu), ("memory", memory)) if s.counted]
    words = [(amount(resource, abs(value)), "less" if value >= 0 else "more") for resource, value in counted]
    if len(words) == 2 and words[0][1] == words[1][1]:
        return f"{words[0][0]} and {words[1][0]} {words[0][1]}"
    return " and ".join(f"{value} {word}" for value, word in words)


def uncounted(app: AppReport) -> str:
    """How containers without a limit are counted; "" when there are none."""
    parts = []
    for resource, name in (("cpu", "CPU"), ("memory", "memory")):
        if n := app.saved(resource).unlimited:
            parts.append(f"{n} of {len(app.managed)} managed containers came without a {name} limit")
        if n := app.would_save(resource).unlimited:
            parts.append(f"{n} of {len(app.observed)} observed containers have no {name} limit")
    return f"Not counted: {'; '.join(parts)}. No limit has no number that could be saved." if parts else ""


def tiles(app: AppReport) -> list[tuple[str, str, str]]:
    """(what, number, remark)."""
    span = app.span
    known = [c for c in app.containers if c.covered_s]
    hosts = len({c.host for c in known})
    slack_cpu, slack_memory = app.slack("cpu"), app.slack("memory")
    kills, averted = sum(c.oom_kills for c in known), sum(c.oom_averted for c in known)
    used_cpu, used_memory = (_mean_used(app, resource, span) for resource in ("cpu", "memory"))
    return [
        ("Containers", str(len(known)), f"on {hosts} {'host' if hosts == 1 else 'hosts'}"),
        (
            "CPU used",
            f"{used_cpu:.2f} cores",
            f"limits {amount('cpu', max(0.0, slack_cpu.amount))} above",
        ),
        ("Memory used", size(used_memory), f"limits {size(max(0.0, slack_memory.amount))} above"),
        ("Throttled", percent(throttled(app)), "mean share of periods"),
        ("OOMs averted", str(averted), "by memory granted"),
        ("OOM kills", str(kills), "tasks killed by the kernel"),
    ]


def throttled(app: AppReport) -> float:
    weights = [c.covered_s for c in app.containers]
    whole = sum(weights)
    return (
        sum(c.throttled_mean * w for c, w in zip(app.containers, weights, strict=True)) / whole
        if whole
        else 0.0
    )


def _mean_used(app: AppReport, resource: str, span: Span) -> float:
    uses = [(c.mean(getattr(c, resource).used) or 0.0) * c.covered_s for c in app.containers]
    return sum(uses) / span.length_s


def as_json(apps: Sequence[AppReport]) -> list[dict[str, Any]]:
    """The contract of ``escra report --json``: keys carry their unit and are only ever added to."""
    return [_app_json(app) for app in apps]


def _app_json(app: AppReport) -> dict[str, Any]:
    def saving(of: Any) -> dict[str, Any]:
        cpu, memory = of("cpu"), of("memory")
        return {
            "cpu": {"cores": round(cpu.amount, 3), "counted": cpu.counted, "unlimited": cpu.unlimited},
            "memory": {
                "bytes": round(memory.amount),
                "counted": memory.counted,
                "unlimited": memory.unlimited,
            },
        }

    return {
        "name": app.name,
        "since": round(app.span.since, 3),
        "until": round(app.span.until, 3),
        "step_s": app.span.step_s,
        "headlines": headlines(app),
        "saved": saving(app.saved),
        "would_save": saving(app.would_save),
        "slack": saving(app.slack),
        "throttled_ratio": round(throttled(app), 4),
        "raised_when_throttled": len(app.raised_when_throttled()),
        "oom_averted": sum(c.oom_averted for c in app.containers),
        "oom_kills": sum(c.oom_kills for c in app.containers),
        "containers": [_container_json(c) for c in app.containers],
        "rules": [{"resource": r, "rule": rule, "decisions": times} for r, rule, times in app.rules],
        "decisions": list(app.decisions),
    }


def _container_json(c: ContainerReport) -> dict[str, Any]:
    def whole(value: float | None) -> int | None:
        return None if value is None else round(value)

    def exact(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {
        "name": c.name,
        "host": c.host,
        "mode": "observe" if c.observed else "auto",
        "covered_s": round(c.covered_s, 1),
        "cpu": {
            "original_cores": exact(c.cpu.original),
            "limit_cores": exact(c.mean(c.cpu.limit)),
            "used_cores": exact(c.mean(c.cpu.used)),
            "peak_cores": exact(c.cpu.peak),
            "would_cores": exact(c.mean(c.cpu.would)),
            "throttled_ratio": exact(c.throttled_mean),
            "would_throttled_ratio": exact(c.mean(c.would_throttled)),
        },
        "memory": {
            "original_bytes": whole(c.memory.original),
            "limit_bytes": whole(c.mean(c.memory.limit)),
            "used_bytes": whole(c.mean(c.memory.used)),
            "peak_bytes": whole(c.memory.peak),
            "would_bytes": whole(c.mean(c.memory.would)),
        },
        "oom_averted": c.oom_averted,
        "oom_kills": c.oom_kills,
    }
