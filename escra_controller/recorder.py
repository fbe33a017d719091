"""Recordings under way: what a client of the control socket fetches, a part at a time.  Pure.

Nobody waits for a reader: what it does not fetch in time is bounded, and then the recording ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from escra_common.errors import EscraError, WireError
from escra_common.messages import Container, CpuLimit, MemoryLimit
from escra_common.units import quota_usec
from escra_controller import recording
from escra_controller.engine import Engine
from escra_controller.events import AgentJoined, AppsConfigured, Event
from escra_controller.memory import MemorySettings
from escra_controller.queries import NoSuchThing
from escra_controller.recording import Only
from escra_controller.state import Member

OPS = ("record", "recorded")
MOST_RECORDINGS = 4
# A reader fetches several times a second.
MAX_BUFFERED_BYTES = 8 << 20
PART_BYTES = 4 << 20
ABANDONED_S = 10.0


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="record"):
    app: Annotated[str, Meta(max_length=255)] = ""


class Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="recorded"):
    """The next part of recording ``number``; ``last`` is 1 when no more is wanted."""

    number: int
    last: Annotated[int, Meta(ge=0, le=1)] = 0


class RecorderError(EscraError):
    """There is no such recording, or it was ended."""


@dataclass(slots=True)
class _Recording:
    started: float
    fetched_at: float
    only: Only
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    overrun: bool = False

    def add(self, event: Event, now: float) -> None:
        chosen = None if self.overrun else self.only(event)
        if chosen is None:
            return
        try:
            part = recording.record(now - self.started, chosen)
        except WireError:
            part, self.overrun = None, True
        if part is not None:
            self.size += len(part)
            self.parts.append(part)
            self.overrun = self.size > MAX_BUFFERED_BYTES


class Recorders:
    """``hear`` takes every event that an engine handled, in order."""

    def __init__(self) -> None:
        self._recordings: dict[int, _Recording] = {}
        self._number = 0

    def hear(self, event: Event, now: float) -> None:
        if not self._recordings:
            return
        for number, each in list(self._recordings.items()):
            if now - each.fetched_at > ABANDONED_S:
                del self._recordings[number]
            else:
                each.add(event, now)

    def answer(
        self, request: dict[str, Any], engine: Engine, memory: MemorySettings, now: float, wall: float
    ) -> dict[str, Any]:
        """Raises RecorderError, NoSuchThing, or msgspec.ValidationError for a request that is none."""
        match msgspec.convert(request, Record | Recorded):
            case Record(app):
                return self._begin(app, engine, memory, now, wall)
            case Recorded(number, last):
                return self._next(number, now, last=bool(last))
        raise AssertionError

    def _begin(
        self, app: str, engine: Engine, memory: MemorySettings, now: float, wall: float
    ) -> dict[str, Any]:
        if app and app not in engine.apps:
            raise NoSuchThing(f"no application {app!r}; see `escra apps` for those there are")
        if len(self._recordings) >= MOST_RECORDINGS:
            raise RecorderError(f"{MOST_RECORDINGS} recordings are under way already")
        self._number += 1
        begun = self._recordings[self._number] = _Recording(now, now, Only(app))
        head = recording.header(wall, engine.settings, memory, app)
        begun.parts.append(head)
        for event in _as_it_is(engine):
            begun.add(event, now)
        return {"number": self._number}

    def _next(self, number: int, now: float, *, last: bool) -> dict[str, Any]:
        found = self._recordings.get(number)
        if found is None:
            raise RecorderError(f"recording {number} has ended: it was not fetched for {ABANDONED_S:g} s")
        if found.overrun:
            del self._recordings[number]
            raise RecorderError("the recording was ended: more came than was fetched")
        found.fetched_at = now
        if last:
            found.parts.append(recording.end(now - found.started))
            del self._recordings[number]
        data, found.parts, found.size = b"".join(found.parts), [], 0
        return {"data": data}


def _as_it_is(engine: Engine) -> Iterator[Event]:
    """What an engine that begins now must be told first."""
    yield AppsConfigured([app.spec for app in engine.apps.values() if not app.removed])
    for name, host in engine.hosts.items():
        if host.connected:
            members = [m for key, m in engine.members.items() if key.host == name]
            yield AgentJoined(host.hello, [_as_limited(m) for m in members])


def _as_limited(member: Member) -> Container:
    """What is known of a container, with the limits that it has now."""
    info, period = member.info, member.info.in_force.period_usec
    if member.limit is not None:
        info = msgspec.structs.replace(info, in_force=CpuLimit(quota_usec(member.limit, period), period))
    if info.memory is not None and member.memory.limit is not None:
        held = msgspec.structs.replace(
            info.memory, in_force=MemoryLimit(member.memory.limit), needed_bytes=member.memory.needed
        )
        info = msgspec.structs.replace(info, memory=held)
    return info
