"""Answers to the control socket: the engine's state in the words and units people use.

The keys are a contract: documented, with the unit in the name, only ever added to.
"""

from collections.abc import Mapping
from typing import Any, assert_never

import msgspec

from escra_common import __version__
from escra_common.errors import EscraError
from escra_common.units import cores
from escra_controller.engine import Engine
from escra_controller.events import AppResized, Decision, Instruction
from escra_controller.state import App, Member

Row = dict[str, Any]


class NoSuchThing(EscraError):
    """A name that nobody knows (exit status 4)."""


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="status"):
    pass


class Apps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="apps"):
    pass


class Ps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="ps"):
    app: str | None = None


class Agents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="agents"):
    pass


class Explain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="explain"):
    """``container`` is a name or the beginning of an id."""

    container: str
    limit: int = 20


class Set(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="set"):
    app: str
    cpu_milli: int | None = None
    memory_bytes: int | None = None


Query = Status | Apps | Ps | Agents | Explain | Set


class Desk:
    """Answers queries about one engine; ``set`` is the only one that changes anything.

    ``wall`` is the unix time at ``now``, for the times people see.
    """

    def __init__(self, engine: Engine, started_at: float) -> None:
        self._engine = engine
        self._started_at = started_at

    def answer(self, request: Mapping[str, Any], now: float, wall: float) -> tuple[Any, list[Instruction]]:
        """The data asked for, and what the engine wants done because of it.

        Raises NoSuchThing, Refused, or msgspec.ValidationError for a request that is none.
        """
        query = msgspec.convert(request, Query)
        match query:
            case Status():
                return self._status(now), []
            case Apps():
                return [app_row(app) for app in self._sorted_apps()], []
            case Ps(app):
                return [self.container_row(m) for m in self._members(app)], []
            case Agents():
                return [self._agent_row(host, now) for host in sorted(self._engine.hosts)], []
            case Explain(container, limit):
                return self._explain(container, limit, now, wall), []
            case Set(app, cpu_milli, memory_bytes):
                out = self._engine.handle(AppResized(app, cpu_milli, memory_bytes), now)
                return app_row(self._engine.apps[app]), out
            case _:
                assert_never(query)

    def _status(self, now: float) -> Row:
        engine = self._engine
        states = [self._state(m) for m in engine.members.values()]
        problems = [
            f"agent {host} is not connected: {info.reason}"
            for host, info in sorted(engine.hosts.items())
            if not info.connected
        ]
        problems += [
            f"{m.info.name} on {m.key.host}: {m.problem}"
            for m in self._members(None)
            if m.problem and m.state != "pinned"
        ]
        return {
            "version": __version__,
            "uptime_s": round(now - self._started_at, 1),
            "state": "degraded" if problems else "ok",
            "problems": problems,
            "apps": len(self._sorted_apps()),
            "agents": sum(host.connected for host in engine.hosts.values()),
            "containers": len(states),
            "managed": states.count("managed"),
            "policy": engine.settings.name,
        }

    def _agent_row(self, host: str, now: float) -> Row:
        info = self._engine.hosts[host]
        totals = info.totals
        return {
            "host": host,
            "state": "connected" if info.connected else "lost",
            "cgroup_version": info.hello.cgroup_version,
            "containers": sum(key.host == host for key in self._engine.members),
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
        }

    def container_row(self, member: Member) -> Row:
        latest, memory = member.demand.latest, member.memory
        limit = member.limit
        if limit is None and (quota := member.info.in_force.quota_usec) is not None:
            limit = quota * 1000 // member.info.in_force.period_usec
        return {
            "id": member.info.id,
            "name": member.info.name,
            "app": member.info.app,
            "host": member.key.host,
            "cgroup": member.info.cgroup,
            "state": self._state(member),
            "problem": member.problem,
            "cpu": {
                "limit_cores": None if limit is None else cores(limit),
                "used_cores": round(member.demand.used() / 1000, 3),
                "throttled_ratio": round(latest.throttled, 3) if latest else 0.0,
            },
            "memory": {
                "limit_bytes": memory.limit_bytes if memory else None,
                "used_bytes": memory.used_bytes if memory else None,
            },
            "oom_events": memory.oom_events if memory else 0,
            "oom_kills": memory.oom_kills if memory else 0,
        }

    def _state(self, member: Member) -> str:
        return member.state if self._engine.hosts[member.key.host].connected else "lost"

    def _explain(self, wanted: str, limit: int, now: float, wall: float) -> Row:
        member = self._find(wanted)
        decisions = list(member.decisions)[-limit:] if limit > 0 else []
        app = self._engine.apps.get(member.info.app)
        return {
            "container": self.container_row(member),
            "cpu": _standing(app, member) if app else {},
            "decisions": [decision_row(d, wall - now) for d in decisions],
        }

    def _find(self, wanted: str) -> Member:
        members = self._members(None)
        found = [m for m in members if m.info.name == wanted or m.info.id == wanted]
        found = found or [m for m in members if m.info.id.startswith(wanted)]
        if not found:
            raise NoSuchThing(f"no container {wanted!r}; see `escra ps` for those there are")
        if len(found) > 1:
            places = ", ".join(f"{m.info.id[:12]} on {m.key.host}" for m in found)
            raise NoSuchThing(f"{wanted!r} names {len(found)} containers: {places}; give the id")
        return found[0]

    def _members(self, app: str | None) -> list[Member]:
        if app is not None and app not in [a.spec.name for a in self._sorted_apps()]:
            raise NoSuchThing(f"no application {app!r}; see `escra apps` for those there are")
        members = [m for m in self._engine.members.values() if app is None or m.info.app == app]
        return sorted(members, key=lambda m: (m.info.app, m.info.name, m.key.host))

    def _sorted_apps(self) -> list[App]:
        apps = self._engine.apps
        return [apps[name] for name in sorted(apps) if not apps[name].removed]


def app_row(app: App) -> Row:
    members = app.members.values()
    memories = [m.memory for m in members if m.memory]
    return {
        "name": app.spec.name,
        "cpu": {
            "limit_cores": cores(app.spec.cpu),
            "allocated_cores": cores(app.ledger.counted),
            "used_cores": round(sum(m.demand.used() for m in members) / 1000, 3),
        },
        "memory": {
            "limit_bytes": app.spec.memory,
            "allocated_bytes": sum(m.limit_bytes or 0 for m in memories),
            "used_bytes": sum(m.used_bytes for m in memories),
        },
        "containers": len(app.members),
        "hosts": len({m.key.host for m in members}),
    }


def decision_row(decision: Decision, offset: float) -> Row:
    """``offset`` turns the engine's clock into unix time."""
    return {
        "at": round(decision.at + offset, 3),
        "rule": decision.rule,
        "cause": decision.cause,
        "before_cores": None if decision.before_milli is None else cores(decision.before_milli),
        "after_cores": None if decision.after_milli is None else cores(decision.after_milli),
        "numbers": {name: round(value, 4) for name, value in decision.numbers.items()},
    }


def _standing(app: App, member: Member) -> Row:
    fair = app.fair_shares().get(member.key)
    counted = app.ledger[member.key].counted if member.key in app.ledger else 0
    return {
        "floor_cores": cores(app.floor(member)),
        "ceiling_cores": cores(app.ceiling(member)),
        "fair_cores": None if fair is None else cores(fair),
        "counted_cores": cores(counted),
        "app_limit_cores": cores(app.spec.cpu),
        "app_free_cores": cores(app.ledger.free),
    }
