"""What each answer of the controller looks like to a person.  Pure.

The data are those of ``--json``; every function gives the lines to print.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from escra_common.units import format_bytes
from escra_controller.render import Cell, Column, Paint, Tone, clean, duration, percent, plain, table

Row = Mapping[str, Any]

_TONES: dict[str, Tone] = {
    "managed": "good",
    "new": "warn",
    "unknown-app": "warn",
    "invalid": "bad",
    "lost": "bad",
    "releasing": "dim",
    "observe": "dim",
    "off": "dim",
    "pinned": "dim",
    "connected": "good",
    "ok": "good",
    "degraded": "bad",
}
_WORDS = {"new": "not yet managed"}

_PS = (
    Column("NAME", flexible=True),
    Column("APP", flexible=True),
    Column("HOST", flexible=True),
    Column("STATE"),
    Column("CPU", right=True),
    Column("LIMIT", right=True),
    Column("THR", right=True),
    Column("MEMORY", right=True),
    Column("MAX", right=True),
)
_APPS = (
    Column("NAME", flexible=True),
    Column("CPU", right=True),
    Column("ALLOCATED", right=True),
    Column("LIMIT", right=True),
    Column("MEMORY", right=True),
    Column("MAX", right=True),
    Column("CONTAINERS", right=True),
    Column("HOSTS", right=True),
)
_AGENTS = (
    Column("HOST", flexible=True),
    Column("STATE"),
    Column("CGROUP"),
    Column("CONTAINERS", right=True),
    Column("SEEN", right=True),
    Column("LATE", right=True),
    Column("DRIFT", right=True),
    Column("VERSION"),
)
_DECISIONS = (
    Column("AGO", right=True),
    Column("RULE"),
    Column("BEFORE", right=True),
    Column("AFTER", right=True),
    Column("CAUSE"),
)


def ps(rows: Sequence[Row], width: int | None = None, paint: Paint = plain) -> list[str]:
    return table(_PS, [_ps_row(row) for row in rows], width, paint)


def _ps_row(row: Row) -> list[Cell | str]:
    cpu, memory = row["cpu"], row["memory"]
    ratio = cpu["throttled_ratio"]
    return [
        row["name"],
        row["app"],
        row["host"],
        state(row["state"]),
        cores(cpu["used_cores"]),
        limit(cpu["limit_cores"]),
        Cell(percent(ratio), "warn" if ratio else None),
        size(memory["used_bytes"]),
        format_bytes(memory["limit_bytes"]),
    ]


def apps(rows: Sequence[Row], width: int | None = None, paint: Paint = plain) -> list[str]:
    return table(_APPS, [_apps_row(row) for row in rows], width, paint)


def _apps_row(row: Row) -> list[Cell | str]:
    cpu, memory = row["cpu"], row["memory"]
    return [
        row["name"],
        cores(cpu["used_cores"]),
        cores(cpu["allocated_cores"]),
        limit(cpu["limit_cores"]),
        size(memory["used_bytes"]),
        format_bytes(memory["limit_bytes"]),
        str(row["containers"]),
        str(row["hosts"]),
    ]


def agents(rows: Sequence[Row], width: int | None = None, paint: Paint = plain) -> list[str]:
    return table(_AGENTS, [_agents_row(row) for row in rows], width, paint)


def _agents_row(row: Row) -> list[Cell | str]:
    seen = row["last_seen_s"]
    return [
        row["host"],
        state(row["state"]),
        row["cgroup_version"],
        str(row["containers"]),
        "-" if seen is None else duration(seen),
        str(row.get("late_ticks", "-")),
        str(row.get("drift_repairs", "-")),
        row["version"],
    ]


def status(data: Row, paint: Paint = plain) -> list[str]:
    health = data["state"]
    lines = [
        f"escra {clean(data['version'])}: {paint(clean(health), _TONES.get(health, 'bad'))}, "
        f"up {duration(data['uptime_s'])}",
        "  "
        + ", ".join(
            (
                counted(data["apps"], "application"),
                counted(data["containers"], "container"),
                counted(data["agents"], "agent"),
            )
        ),
    ]
    return lines + [f"  {paint('problem', 'bad')}: {clean(problem)}" for problem in data["problems"]]


def explain(data: Row, now: float, paint: Paint = plain) -> list[str]:
    """Why this container has this limit; ``now`` in unix seconds."""
    row, cpu = data["container"], data["cpu"]
    usage, memory = row["cpu"], row["memory"]
    label = state(row["state"])
    lines = [
        f"{clean(row['name'])}: {paint(label.text, label.tone) if label.tone else label.text}, "
        f"application {clean(row['app'] or '-')}, host {clean(row['host'])}",
        f"  cgroup {clean(row['cgroup'])}",
        f"  CPU    limit {limit(usage['limit_cores'])}  used {cores(usage['used_cores'])}  "
        f"throttled in {percent(usage['throttled_ratio'])} of its periods",
        f"         floor {cores(cpu.get('floor_cores'))}  ceiling {limit(cpu.get('ceiling_cores'))}  "
        f"fair share {cores(cpu.get('fair_cores'))}  counted in the pool {cores(cpu.get('counted_cores'))}",
        f"  Memory limit {format_bytes(memory['limit_bytes'])}  used {size(memory['used_bytes'])}  "
        f"OOM kills {row['oom_kills']}",
    ]
    if row.get("problem"):
        lines.append(f"  {paint('problem', 'bad')}: {clean(row['problem'])}")
    lines.append("")
    if not data["decisions"]:
        return [*lines, "No decision about its limit yet."]
    return [*lines, "Decisions in cores, newest last:", *_decisions(data["decisions"], now, paint)]


def _decisions(decisions: Sequence[Row], now: float, paint: Paint) -> list[str]:
    rows = [
        [
            duration(now - decision["at"]),
            decision["rule"],
            limit(decision["before_cores"]),
            limit(decision["after_cores"]),
            decision["cause"],
        ]
        for decision in decisions
    ]
    return table(_DECISIONS, rows, paint=paint)


def state(name: str) -> Cell:
    return Cell(_WORDS.get(name, clean(name)), _TONES.get(name))


def cores(value: float | None) -> str:
    """An amount of CPU; None is not known."""
    return "-" if value is None else f"{value:.2f}"


def limit(value: float | None) -> str:
    """A CPU limit; None is no limit."""
    return "max" if value is None else f"{value:.2f}"


def size(value: int | None) -> str:
    return "-" if value is None else format_bytes(value)


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "host"), counted(3, "host")
    ('1 host', '3 hosts')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
