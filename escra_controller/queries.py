"""The questions of the control socket, and their answers."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, assert_never

import msgspec
from msgspec import Meta

from escra_common import __version__
from escra_common.errors import EscraError
from escra_common.units import MAX_BYTES, MAX_MILLICORES
from escra_controller.bounds import NAMELESS
from escra_controller.engine import Engine
from escra_controller.events import AppResized, HostForgotten, Instruction
from escra_controller.rows import (
    Row,
    absent_row,
    agent_row,
    app_row,
    container_row,
    cpu_standing,
    decision_row,
    event_row,
    memory_standing,
    state_word,
)
from escra_controller.state import DECISIONS_KEPT, App, Member
from escra_controller.would import WouldHave, nobody

_PLACES_NAMED = 10
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.2, 60.0
# What a picture does between two rounds of the control loop: about half a millisecond.
_ROWS_A_STEP = 50


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


class Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="events"):
    """The last ``limit`` decisions numbered above ``after``, oldest first."""

    after: int = 0
    limit: int = 50
    app: str | None = None


class Set(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="set"):
    """Within what a configuration may say."""

    app: str
    cpu_milli: Annotated[int, Meta(ge=1, le=int(MAX_MILLICORES))] | None = None
    memory_bytes: Annotated[int, Meta(ge=1, le=int(MAX_BYTES))] | None = None


class Forget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="forget"):
    """A host that is gone for good holds nothing any more."""

    host: str


class Promote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="promote"):
    """A standby is to lead; ``hosts``, separated by commas, may hold limits, beside those it has met."""

    hosts: str = ""


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="watch"):
    """A picture of everything at once and every ``interval_s``, until the client asks another or leaves.

    With ``explain``, the id of a container on ``host``, each is followed by what `explain` says about it.
    """

    interval_s: Annotated[float, Meta(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S)] = 1.0
    explain: str | None = None
    host: str = ""
    limit: Annotated[int, Meta(ge=0, le=DECISIONS_KEPT)] = DECISIONS_KEPT


Query = Status | Apps | Ps | Agents | Explain | Events | Set | Forget


@dataclass(frozen=True, slots=True)
class Standing:
    """The controller's part among controllers, what is not well with it, and how often its tick was late."""

    role: str = "leader"
    epoch: int = 0
    problems: Sequence[str] = ()
    late_ticks: int = 0


class Desk:
    """Answers queries about one engine; ``set`` is the only one that changes anything.

    ``wall`` is the unix time at ``now``, for the times people see.  ``would`` says what observed
    containers would have.
    """

    def __init__(
        self,
        engine: Engine,
        started_at: float,
        standing: Callable[[], Standing] = Standing,
        would: WouldHave = nobody,
    ) -> None:
        self._engine = engine
        self._would = would
        self._started_at = started_at
        self._standing = standing

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
                return [self._row(member) for member in self._members(app)], []
            case Agents():
                return self._agents(now), []
            case Explain(container, limit):
                return self._explained(self._find(container), limit, now, wall), []
            case Events(after, limit, app):
                return self._events(after, limit, app, wall - now), []
            case Set(app, cpu_milli, memory_bytes):
                out = self._engine.handle(AppResized(app, cpu_milli, memory_bytes), now)
                return app_row(self._engine.apps[app]), out
            case Forget(host):
                return {"host": host}, self._engine.handle(HostForgotten(host), now)
            case _:
                assert_never(query)

    def picture(self, now: float, wall: float) -> Generator[None, None, Row]:
        """All there is to see, in no order, in steps: the control loop can have its turn between them."""
        engine = self._engine
        status = self._status(now)
        yield
        members, containers = list(engine.members.values()), list[Row]()
        for start in range(0, len(members), _ROWS_A_STEP):
            step = members[start : start + _ROWS_A_STEP]
            # Some may have gone since.
            containers += [self._row(m) for m in step if engine.members.get(m.key) is m]
            yield
        apps = [app_row(app) for app in self._sorted_apps()]
        return {
            "at": round(wall, 3),
            "status": status,
            "apps": apps,
            "containers": containers,
            "agents": self._agents(now),
        }

    def explain(self, id: str, host: str, limit: int, now: float, wall: float) -> Row | None:
        """About the container with this id on this host; None when it has gone."""
        found = [m for m in self._engine.members.values() if m.key.host == host and m.info.id == id]
        return self._explained(found[0], limit, now, wall) if found else None

    def _agents(self, now: float) -> list[Row]:
        known = [agent_row(self._engine, host, now) for host in sorted(self._engine.hosts)]
        return known + [absent_row(host) for host in sorted(self._engine.absent_hosts())]

    def problems(self) -> list[str]:
        """What is not well, in sentences; empty when all is."""
        engine = self._engine
        problems = [
            f"agent {host} is not connected: {info.reason}"
            for host, info in sorted(engine.hosts.items())
            if not info.connected
        ]
        problems += [_absence(host) for host in sorted(engine.absent_hosts())]
        problems += [
            f"host {host} gets no first limits: neither all its controllers nor all hosts know of it yet; "
            "bring those back that are away, or forget them"
            for host, info in sorted(engine.hosts.items())
            if info.connected and info.strange
        ]
        problems += self._standing().problems
        members = self._members(None)
        problems += [
            f"{m.info.name} on {m.key.host}: {m.problem}"
            for m in members
            if m.problem and m.state != "pinned"
        ]
        problems += [
            f"{m.info.name} on {m.key.host}: {m.memory.problem}"
            for m in members
            if m.memory.problem and m.memory.limit is None
        ]
        return problems

    def _status(self, now: float) -> Row:
        engine, standing, problems = self._engine, self._standing(), self.problems()
        states = [state_word(engine, m) for m in engine.members.values()]
        return {
            "version": __version__,
            "role": standing.role,
            "epoch": standing.epoch,
            "uptime_s": round(now - self._started_at, 1),
            "state": "degraded" if problems else "ok",
            "problems": problems,
            "apps": len(self._sorted_apps()),
            "agents": sum(host.connected for host in engine.hosts.values()),
            "containers": len(states),
            "managed": states.count("managed"),
            "observed": states.count("observe"),
            "policy": engine.settings.name,
            "late_ticks": standing.late_ticks,
        }

    def _row(self, member: Member) -> Row:
        return container_row(self._engine, member, self._would(member.key))

    def _explained(self, member: Member, limit: int, now: float, wall: float) -> Row:
        decisions = list(member.decisions)[-limit:] if limit > 0 else []
        app = self._engine.apps.get(member.info.app)
        return {
            "container": self._row(member),
            "cpu": cpu_standing(app, member) if app else {},
            "memory": memory_standing(app, member) if app else {},
            "decisions": [decision_row(d, wall - now) for d in decisions],
        }

    def _events(self, after: int, limit: int, app: str | None, offset: float) -> list[Row]:
        self._members(app)  # there must be such an application
        found = [
            event_row(number, decision, offset)
            for number, decision in self._engine.decisions
            if number > after and app in (None, decision.app)
        ]
        return found[-limit:] if limit > 0 else []

    def _find(self, wanted: str) -> Member:
        members = self._members(None)
        found = [m for m in members if m.info.name == wanted or m.info.id == wanted]
        found = found or [m for m in members if m.info.id.startswith(wanted)]
        if not found:
            raise NoSuchThing(f"no container {wanted!r}; see `escra ps` for those there are")
        if len(found) > 1:
            places = ", ".join(f"{m.info.id[:12]} on {m.key.host}" for m in found[:_PLACES_NAMED])
            more = ", ..." if len(found) > _PLACES_NAMED else ""
            raise NoSuchThing(f"{wanted!r} names {len(found)} containers: {places}{more}; give the id")
        return found[0]

    def _members(self, app: str | None) -> list[Member]:
        if app is not None and app not in [a.spec.name for a in self._sorted_apps()]:
            raise NoSuchThing(f"no application {app!r}; see `escra apps` for those there are")
        members = [m for m in self._engine.members.values() if app is None or m.info.app == app]
        return sorted(members, key=lambda m: (m.info.app, m.info.name, m.key.host))

    def _sorted_apps(self) -> list[App]:
        apps = self._engine.apps
        return [apps[name] for name in sorted(apps) if not apps[name].removed]


def _absence(host: str) -> str:
    what = "has not come back since the restart"
    if host.startswith(NAMELESS):
        what = "is one that the leader before counted, and that this one has never met"
    return f"host {host} {what}; if it is gone for good: escra forget {host}"
