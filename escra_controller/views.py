"""What each answer of the controller looks like to a person.  Pure.

The data are those of ``--json``; every function gives the lines to print.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
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
    Column("ALLOC", right=True),
    Column("LIMIT", right=True),
    Column("MEMORY", right=True),
    Column("ALLOC", right=True),
    Column("LIMIT", right=True),
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
    Column("WHAT"),
    Column("RULE"),
    Column("BEFORE", right=True),
    Column("AFTER", right=True),
    Column("CAUSE"),
)


def ps(rows: Sequence[Row], width: int | None = None, paint: Paint = plain) -> list[str]:
    return table(_PS, [_ps_row(row) for row in rows], width, paint)


def _ps_row(row: Row) -> list[Cell | str]:
    cpu, memory, would = row["cpu"], row["memory"], row.get("would")
    ratio = cpu["throttled_ratio"]
    return [
        row["name"],
        row["app"],
        row["host"],
        state(row["state"]),
        cores(cpu["used_cores"]),
        _or_would(limit(cpu["limit_cores"]), would and would["cpu"]["limit_cores"], limit),
        Cell(percent(ratio), "warn" if ratio else None),
        size(memory["used_bytes"]),
        _or_would(
            format_bytes(memory["limit_bytes"]), would and would["memory"]["limit_bytes"], format_bytes
        ),
    ]


def _or_would(present: str, would: Any, text: Callable[[Any], str]) -> str:
    """A limit in force and, in brackets, the one that an observed container would have."""
    return present if would is None else f"{present} ({text(would)})"


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
        size(memory["allocated_bytes"]),
        format_bytes(memory["limit_bytes"]),
        str(row["containers"]) + _observed(row),
        str(row["hosts"]),
    ]


def _observed(row: Row) -> str:
    number = row.get("observed", 0)
    return "" if not number else " observe" if number == row["containers"] else f" ({number} observe)"


def agents(rows: Sequence[Row], width: int | None = None, paint: Paint = plain) -> list[str]:
    return table(_AGENTS, [_agents_row(row) for row in rows], width, paint)


def _agents_row(row: Row) -> list[Cell | str]:
    seen = row["last_seen_s"]
    return [
        row["host"],
        state(row["state"]),
        row["cgroup_version"],
        "-" if row["containers"] is None else str(row["containers"]),
        "-" if seen is None else duration(seen),
        str(row.get("late_ticks", "-")),
        str(row.get("drift_repairs", "-")),
        row["version"],
    ]


def status(data: Row, paint: Paint = plain) -> list[str]:
    health = data["state"]
    lines = [
        f"escra {clean(data['version'])}: {paint(clean(health), _TONES.get(health, 'bad'))}, "
        f"up {duration(data['uptime_s'])}" + _role(data),
        "  "
        + ", ".join(
            (
                counted(data["apps"], "application"),
                counted(data["containers"], "container")
                + (f" ({observed} only observed)" if (observed := data.get("observed", 0)) else ""),
                counted(data["agents"], "agent"),
            )
        ),
    ]
    return lines + [f"  {paint('problem', 'bad')}: {clean(problem)}" for problem in data["problems"]]


def _role(data: Row) -> str:
    """Who leads says nothing of it until there was a choice."""
    role, epoch = data.get("role", "leader"), data.get("epoch", 0)
    return f", {clean(role)}" if role != "leader" else f", leader with epoch {epoch}" if epoch else ""


def explain(data: Row, now: float, paint: Paint = plain) -> list[str]:
    """Why this container has these limits; ``now`` in unix seconds."""
    row = data["container"]
    label = state(row["state"])
    lines = [
        f"{clean(row['name'])}: {paint(label.text, label.tone) if label.tone else label.text}, "
        f"application {clean(row['app'] or '-')}, host {clean(row['host'])}",
        f"  cgroup {clean(row['cgroup'])}",
        *_explain_cpu(row["cpu"], data["cpu"]),
        *_explain_memory(row, data["memory"]),
        *_explain_would(row.get("would")),
    ]
    problems = (row.get("problem"), row["memory"].get("problem"))
    lines += [f"  {paint('problem', 'bad')}: {clean(problem)}" for problem in problems if problem]
    lines.append("")
    if not data["decisions"]:
        return [*lines, "No decision about its limits yet."]
    return [*lines, "Decisions in cores and bytes, newest last:", *decisions(data["decisions"], now, paint)]


def decisions(rows: Sequence[Row], now: float, paint: Paint = plain) -> list[str]:
    """About one container, in the order given."""
    return table(_DECISIONS, [_decision(row, now) for row in rows], paint=paint)


def _explain_cpu(usage: Row, cpu: Row) -> list[str]:
    headroom = cpu.get("headroom_cores")
    ahead = f", {cores(headroom)} of it headroom" if headroom else ""
    return [
        f"  CPU    limit {limit(usage['limit_cores'])}  used {cores(usage['used_cores'])}  "
        f"throttled in {percent(usage['throttled_ratio'])} of its periods",
        f"         floor {cores(cpu.get('floor_cores'))}  ceiling {limit(cpu.get('ceiling_cores'))}  "
        f"fair share {cores(cpu.get('fair_cores'))}  "
        f"counted in the pool {cores(cpu.get('counted_cores'))}{ahead}",
    ]


def _explain_memory(row: Row, standing: Row) -> list[str]:
    memory, headroom = row["memory"], standing.get("headroom_bytes")
    ahead = f", {size(headroom)} of it headroom" if headroom else ""
    return [
        f"  Memory limit {format_bytes(memory['limit_bytes'])}  used {size(memory['used_bytes'])}  "
        f"needed {size(memory.get('needed_bytes'))}  OOM kills {row['oom_kills']}",
        f"         floor {size(standing.get('floor_bytes'))}  "
        f"ceiling {format_bytes(standing.get('ceiling_bytes'))}  "
        f"fair share {size(standing.get('fair_bytes'))}  "
        f"counted in the pool {size(standing.get('counted_bytes'))}{ahead}",
    ]


def _explain_would(would: Row | None) -> list[str]:
    if would is None:
        return []
    cpu, memory = would["cpu"]["limit_cores"], would["memory"]["limit_bytes"]
    return [
        f"  Would  CPU {limit(cpu) if cpu is not None else 'as it is'}, "
        f"memory {format_bytes(memory) if memory is not None else 'as it is'}; "
        f"{percent(would['throttled_ratio'])} of its last work would have been held back.  "
        "It is only observed: nothing is written."
    ]


def _decision(decision: Row, now: float) -> list[Cell | str]:
    return [
        duration(now - decision["at"]),
        decision["resource"],
        f"({decision['rule']})" if decision.get("observed") else decision["rule"],
        _amount(decision, "before"),
        _amount(decision, "after"),
        _cause(decision),
    ]


def _cause(decision: Row) -> str:
    if not decision.get("observed"):
        return str(decision["cause"])
    changes = _amount(decision, "before") != _amount(decision, "after")
    return f"{'would change' if changes else 'only observed'}: {decision['cause']}"


def _amount(decision: Row, when: str) -> str:
    if decision["resource"] == "cpu":
        return limit(decision[f"{when}_cores"])
    return format_bytes(decision[f"{when}_bytes"])


def events(rows: Sequence[Row], *, header: bool = True, days: bool = False) -> list[str]:
    """Decisions about everybody, for a screen that scrolls: their columns do not depend on one another.

    A rule in brackets only would have decided.
    """
    form, width = ("%Y-%m-%d %H:%M:%S.%f", 23) if days else ("%H:%M:%S.%f", 12)
    lines = (
        [_EVENT.format("TIME".ljust(width), "CONTAINER", "WHAT", "RULE", "BEFORE", "AFTER", "CAUSE")]
        if header
        else []
    )
    for row in rows:
        at = datetime.fromtimestamp(row["at"]).strftime(form)[:-3]
        what = f"{clean(row['app'])}/{clean(row['container'])}"
        before, after = _amount(row, "before"), _amount(row, "after")
        rule = f"({row['rule']})" if row.get("observed") else row["rule"]
        line = _EVENT.format(at, what, row["resource"], rule, before, after, clean(_cause(row)))
        lines.append(line.rstrip())
    return lines


_EVENT = "{}  {:24}  {:6}  {:9}  {:>8} {:>8}  {}"


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
