"""Rows of the answers to people: the engine's state in the words and units of the command line.

The keys are a contract: documented, with the unit in the name, only ever added to.
"""

from collections.abc import Callable
from typing import Any

from escra_common.units import cores
from escra_controller.engine import Engine
from escra_controller.events import Decision
from escra_controller.ledger import Ledger
from escra_controller.state import App, Member, MemberKey
from escra_controller.would import Would

Row = dict[str, Any]


def state_word(engine: Engine, member: Member) -> str:
    return member.state if engine.hosts[member.key.host].connected else "lost"


def agent_row(engine: Engine, host: str, now: float) -> Row:
    info = engine.hosts[host]
    totals = info.totals
    return {
        "host": host,
        "state": "connected" if info.connected else "lost",
        "cgroup_version": info.hello.cgroup_version,
        "containers": sum(key.host == host for key in engine.members),
        "last_seen_s": round(now - info.heard_at, 1),
        "version": info.hello.software,
        "cpus": info.hello.cpus,
        "memory_bytes": info.hello.memory_bytes,
        "ticks": totals.ticks,
        "late_ticks": totals.late_ticks,
        "dropped_samples": totals.dropped_samples,
        "drift_repairs": totals.drift_repairs,
        "writes": totals.writes,
        "refill_cpu_s": totals.refill_usec / 1e6,
        "lent_cpu_s": totals.lent_usec / 1e6,
        "memory_writes": totals.memory_writes,
    }


def absent_row(host: str) -> Row:
    """A host from before a restart: its limits are counted, the rest is not known."""
    return {
        "host": host,
        "state": "absent",
        "cgroup_version": "",
        "containers": None,
        "last_seen_s": None,
        "version": "",
    }


def container_row(engine: Engine, member: Member, would: Would | None = None) -> Row:
    """``would`` is what it would have, were it managed: for observed ones."""
    level, app = member.memory.level, engine.apps.get(member.info.app)
    return {
        "id": member.info.id,
        "name": member.info.name,
        "app": member.info.app,
        "host": member.key.host,
        "cgroup": member.info.cgroup,
        "state": state_word(engine, member),
        "problem": member.problem,
        "cpu": _cpu(member) | _booked(app.ledger if app else None, member, "cores", cores),
        "memory": _memory(member) | _booked(app.memory if app else None, member, "bytes", int),
        "would": None if would is None else _would(would),
        "oom_events": level.oom_events if level else 0,
        "oom_kills": level.oom_kills if level else 0,
        "oom_averted": member.memory.averted,
    }


def cpu_limit_milli(member: Member) -> int | None:
    """The quota in force, whoever set it; None is no limit."""
    in_force = member.info.in_force
    if member.limit is None and in_force.quota_usec is not None:
        return in_force.quota_usec * 1000 // in_force.period_usec
    return member.limit


def memory_limit_bytes(member: Member) -> int | None:
    """The same for memory."""
    memory, info = member.memory, member.info.memory
    if memory.limit is not None:
        return memory.limit
    return memory.level.limit_bytes if memory.level else info.in_force.max_bytes if info else None


def _cpu(member: Member) -> Row:
    latest, limit = member.demand.latest, cpu_limit_milli(member)
    return {
        "limit_cores": None if limit is None else cores(limit),
        "used_cores": round(member.demand.used() / 1000, 3),
        "throttled_ratio": round(latest.throttled, 3) if latest else 0.0,
    }


def _booked(
    ledger: Ledger[MemberKey] | None, member: Member, unit: str, amount: Callable[[int], float]
) -> Row:
    """What it counts for in Ω, how much of that is not in force but its agent's to take without asking, and
    the limit that was ordered but not read back yet; None: none is.
    """
    entry = ledger[member.key] if ledger is not None and member.key in ledger else None
    return {
        f"counted_{unit}": amount(entry.counted if entry else 0),
        f"headroom_{unit}": amount(entry.headroom if entry else 0),
        f"ordered_{unit}": amount(entry.ordered) if entry and entry.pending else None,
    }


def _would(would: Would) -> Row:
    return {
        "cpu": {"limit_cores": None if would.cpu_milli is None else cores(would.cpu_milli)},
        "memory": {"limit_bytes": would.memory_bytes},
        "throttled_ratio": round(would.throttled, 3),
    }


def _memory(member: Member) -> Row:
    memory, info = member.memory, member.info.memory
    level = memory.level
    return {
        "limit_bytes": memory_limit_bytes(member),
        "used_bytes": level.used_bytes if level else None,
        "needed_bytes": memory.needed if level else None,
        "managed": memory.limit is not None,
        "problem": memory.problem or (info.problem if info else "no memory controller"),
        "high_events": level.high_events if level else 0,
        "max_events": level.max_events if level else 0,
    }


def app_row(app: App) -> Row:
    members = app.members.values()
    levels = [m.memory.level for m in members if m.memory.level]
    return {
        "name": app.spec.name,
        "cpu": {
            "limit_cores": cores(app.spec.cpu),
            "allocated_cores": cores(app.ledger.counted),
            "reserved_cores": cores(app.ledger.reserved),
            "used_cores": round(sum(m.demand.used() for m in members) / 1000, 3),
        },
        "memory": {
            "limit_bytes": app.spec.memory,
            "allocated_bytes": app.memory.counted,
            "reserved_bytes": app.memory.reserved,
            "used_bytes": sum(level.used_bytes for level in levels),
        },
        "containers": len(app.members),
        "hosts": len({m.key.host for m in members}),
        "oom_averted": app.oom_averted,
        "mode": app.spec.mode,
        "observed": sum(m.state == "observe" for m in members),
    }


def decision_row(decision: Decision, offset: float) -> Row:
    """``offset`` turns the engine's clock into unix time.  The limits' keys carry their unit."""
    row: Row = {
        "at": round(decision.at + offset, 3),
        "resource": decision.resource,
        "rule": decision.rule,
        "cause": decision.cause,
        "observed": decision.observed,
        "numbers": {name: round(value, 4) for name, value in decision.numbers.items()},
    }
    for name, value in (("before", decision.before), ("after", decision.after)):
        if decision.resource == "cpu":
            row[f"{name}_cores"] = None if value is None else cores(value)
        else:
            row[f"{name}_bytes"] = value
    return row


def event_row(number: int, decision: Decision, offset: float) -> Row:
    """A decision with whom it is about, for a list of everybody's."""
    about = {"app": decision.app, "container": decision.container, "host": decision.host}
    return {"number": number, **about, **decision_row(decision, offset)}


def cpu_standing(app: App, member: Member) -> Row:
    fair = app.fair_shares().get(member.key)
    counted = app.ledger[member.key].counted if member.key in app.ledger else 0
    return {
        "floor_cores": cores(app.floor(member)),
        "ceiling_cores": cores(app.ceiling(member)),
        "fair_cores": None if fair is None else cores(fair),
        "counted_cores": cores(counted),
        "headroom_cores": cores(app.ledger[member.key].headroom if member.key in app.ledger else 0),
        "app_limit_cores": cores(app.spec.cpu),
        "app_free_cores": cores(app.ledger.free),
    }


def memory_standing(app: App, member: Member) -> Row:
    return {
        "floor_bytes": app.memory_floor(member),
        "ceiling_bytes": app.memory_ceiling(member),
        "fair_bytes": app.memory_shares().get(member.key),
        "counted_bytes": app.memory[member.key].counted if member.key in app.memory else 0,
        "headroom_bytes": app.memory[member.key].headroom if member.key in app.memory else 0,
        "app_limit_bytes": app.spec.memory,
        "app_free_bytes": app.memory.free,
    }
