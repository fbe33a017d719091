"""A recording: what an engine was told, and when, as bytes.  Pure.

A file is frames, as on the agents' wire: a header, then ``[seconds, kind, fields]`` for each event, then the
end.  Seconds count from the start of the recording.  All that is read is checked against the events' types.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, get_type_hints

import msgspec

from escra_common import __version__
from escra_common.errors import EscraError, WireError
from escra_common.framing import Decoder, encode
from escra_common.units import Size, parse_bytes
from escra_controller import events
from escra_controller.events import AgentJoined, AppsConfigured, AppSpec, Event
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings

FORMAT = "escra recording"
VERSION = 1
MAX_RECORD_BYTES = 4 << 20
END = "end"

T = TypeVar("T")

_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(events.AgentJoined, events.AgentLeft, events.ContainerAppeared, events.ContainerGone),
        *(events.SamplesArrived, events.MemoryArrived, events.MemoryNeeded, events.MemoryDrew),
        *(events.TasksKilled, events.LimitsApplied, events.MemoryApplied, events.AppsConfigured),
        *(events.AppResized, events.HostForgotten, events.Ticked),
    )
}
_TYPES = {name: get_type_hints(kind) for name, kind in _KINDS.items()}


class DamagedRecording(EscraError):
    """A file that cannot be replayed."""


class Header(msgspec.Struct, frozen=True):
    """``started`` is unix time; ``app`` the only application recorded, "" for all."""

    version: int
    software: str
    started: float
    policy: Settings
    memory: MemorySettings
    app: str = ""
    format: str = FORMAT


class Record(msgspec.Struct, frozen=True):
    at: float
    event: Event


def header(started: float, policy: Settings, memory: MemorySettings, app: str) -> bytes:
    head = Header(VERSION, __version__, started, policy, memory, app)
    return encode(msgspec.to_builtins(head, enc_hook=int))


def record(at: float, event: Event) -> bytes | None:
    """One frame; None for what is of no use later (bounds on a disk, an agent's totals)."""
    kind = type(event).__name__
    if kind not in _KINDS:
        return None
    values = [msgspec.to_builtins(getattr(event, field.name)) for field in fields(event)]
    return encode([round(at, 6), kind, values], MAX_RECORD_BYTES)


def end(at: float) -> bytes:
    return encode([round(at, 6), END, []])


def read(chunks: Iterable[bytes], name: str) -> tuple[Header, list[Record]]:
    """The whole recording; raises DamagedRecording, which says where in ``name`` what is wrong."""
    decoder, head, records, ended = Decoder(MAX_RECORD_BYTES), None, [], False
    number = 0
    try:
        for body in (body for chunk in chunks for body in decoder.feed(chunk)):
            number += 1
            if head is None:
                head = _header(body)
            elif ended:
                raise WireError("something follows the end")
            elif isinstance(body, list) and len(body) == 3 and body[1] == END:
                ended = True
            else:
                records.append(_record(body))
    except (WireError, msgspec.ValidationError, KeyError, ValueError, TypeError) as error:
        if head is None:
            raise DamagedRecording(f"{name} is no recording of `escra record`: {error}") from error
        raise DamagedRecording(f"{name} is damaged: record {number}: {error}") from error
    if head is None:
        raise DamagedRecording(f"{name} is no recording of `escra record`: it has no header")
    if not ended:
        raise DamagedRecording(f"{name} is damaged: it breaks off after record {number}")
    return head, records


def convert(raw: Any, kind: type[T]) -> T:
    """Settings from plain values, as a person or a recording writes them; raises ValueError."""
    return msgspec.convert(raw, kind, strict=False, dec_hook=_amount)


def _amount(kind: type, value: Any) -> Any:
    if kind is not Size:
        raise NotImplementedError
    return Size(parse_bytes(value))


def _header(body: Any) -> Header:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise WireError("it has another header")
    if body.get("version") != VERSION:
        raise WireError(f"it is of version {body.get('version')!r}, this program reads {VERSION}")
    return convert(body, Header)


def _record(body: Any) -> Record:
    at, kind, values = body
    types = _TYPES[kind]
    if len(values) != len(types):
        raise WireError(f"{kind} with {len(values)} fields")
    converted = {
        name: msgspec.convert(value, type_, strict=True)
        for (name, type_), value in zip(types.items(), values, strict=True)
    }
    return Record(msgspec.convert(at, float, strict=False), _KINDS[kind](**converted))


def apps_of(records: Sequence[Record]) -> dict[str, AppSpec]:
    """The applications as first configured."""
    for found in records:
        if isinstance(found.event, AppsConfigured):
            return {spec.name: spec for spec in found.event.apps}
    return {}


class Only:
    """Lets through what concerns one application; "" lets all through."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._keys: set[tuple[str, int]] = set()

    def __call__(self, event: Event) -> Event | None:
        """The event, as far as it concerns the application; None when it does not."""
        if not self._app:
            return event
        match event:
            case AgentJoined(hello, containers):
                mine = [c for c in containers if c.app == self._app]
                self._keys = {key for key in self._keys if key[0] != hello.host}
                self._keys |= {(hello.host, c.key) for c in mine}
                return replace(event, containers=mine)
            case events.ContainerAppeared(host, container):
                if container.app == self._app:
                    self._keys.add((host, container.key))
                    return event
                if (host, container.key) not in self._keys:
                    return None
                self._keys.discard((host, container.key))
                return events.ContainerGone(host, container.key)
            case AppsConfigured(apps):
                return AppsConfigured([spec for spec in apps if spec.name == self._app])
            case events.AppResized(app):
                return event if app == self._app else None
            case events.ContainerGone(host, key):
                return event if (host, key) in self._keys else None
            case (
                events.MemoryNeeded(host, about)
                | events.MemoryDrew(host, about)
                | events.TasksKilled(host, about)
            ):
                return event if (host, about.key) in self._keys else None
            case events.SamplesArrived(host, samples):
                kept = list(self._of(host, samples))
                return events.SamplesArrived(host, kept) if kept else None
            case events.MemoryArrived(host, levels):
                measured = list(self._of(host, levels))
                return events.MemoryArrived(host, measured) if measured else None
            case events.LimitsApplied(host, acks):
                applied = list(self._of(host, acks))
                return events.LimitsApplied(host, applied) if applied else None
            case events.MemoryApplied(host, memory_acks):
                sized = list(self._of(host, memory_acks))
                return events.MemoryApplied(host, sized) if sized else None
        return event

    def _of(self, host: str, items: Iterable[Any]) -> Iterator[Any]:
        return (item for item in items if (host, item.key) in self._keys)
