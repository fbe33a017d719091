"""What is listed: applications, containers and hosts as items of one shape, sorted and filtered.  Pure."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Row = Mapping[str, Any]
Kind = Literal["apps", "containers", "hosts"]
Key = tuple[str, ...]

KINDS: tuple[Kind, ...] = ("apps", "containers", "hosts")
# As many frames as a wide terminal has columns.
FRAMES_KEPT = 300


@dataclass(frozen=True, slots=True)
class Use:
    """In cores or bytes.  ``held`` is what is handed out of the limit, None where that is the limit itself.

    ``limit`` None is no limit, ``used`` None is not known.
    """

    used: float | None
    limit: float | None
    held: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """``throttled`` is the ratio of periods cut short; of an application or host, the worst container's."""

    key: Key
    name: str
    app: str
    host: str
    state: str
    cpu: Use
    memory: Use
    throttled: float
    oom_kills: int
    containers: int = 1
    row: Row = field(default_factory=dict)


def listed(picture: Row) -> dict[Kind, list[Item]]:
    """``picture`` is one of those that the controller sends to who watches."""
    containers = [_container(row) for row in picture["containers"]]
    by_app = _grouped(containers, lambda item: item.app)
    by_host = _grouped(containers, lambda item: item.host)
    return {
        "apps": [_app(row, by_app.get(row["name"], [])) for row in picture["apps"]],
        "containers": containers,
        "hosts": [_host(row, by_host.get(row["host"], [])) for row in picture["agents"]],
    }


def _container(row: Row) -> Item:
    cpu, memory = row["cpu"], row["memory"]
    return Item(
        # The id of a cgroup that is no container's may be the same on several hosts.
        key=("container", row["host"], row["id"]),
        name=row["name"],
        app=row["app"],
        host=row["host"],
        state=row["state"],
        cpu=Use(cpu["used_cores"], cpu["limit_cores"]),
        memory=Use(memory["used_bytes"], memory["limit_bytes"]),
        throttled=cpu["throttled_ratio"],
        oom_kills=row["oom_kills"],
        row=row,
    )


def _app(row: Row, containers: Sequence[Item]) -> Item:
    cpu, memory = row["cpu"], row["memory"]
    return Item(
        key=("app", row["name"]),
        name=row["name"],
        app=row["name"],
        host="",
        state="",
        cpu=Use(cpu["used_cores"], cpu["limit_cores"], cpu["allocated_cores"]),
        memory=Use(memory["used_bytes"], memory["limit_bytes"], memory["allocated_bytes"]),
        throttled=max((item.throttled for item in containers), default=0.0),
        oom_kills=sum(item.oom_kills for item in containers),
        containers=row["containers"],
        row=row,
    )


def _host(row: Row, containers: Sequence[Item]) -> Item:
    return Item(
        key=("host", row["host"]),
        name=row["host"],
        app="",
        host=row["host"],
        state=row["state"],
        cpu=Use(_sum(i.cpu.used for i in containers), row.get("cpus"), _sum(i.cpu.limit for i in containers)),
        memory=Use(
            _sum(i.memory.used for i in containers),
            row.get("memory_bytes"),
            _sum(i.memory.limit for i in containers),
        ),
        throttled=max((item.throttled for item in containers), default=0.0),
        oom_kills=sum(item.oom_kills for item in containers),
        containers=row["containers"] or 0,
        row=row,
    )


def _sum(amounts: Iterable[float | None]) -> float:
    return sum(amount for amount in amounts if amount is not None)


def _grouped(items: Iterable[Item], by: Callable[[Item], str]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(by(item), []).append(item)
    return groups


# ---- order ---------------------------------------------------------------------------------

_AMOUNTS: dict[str, Callable[[Item], float]] = {
    "cpu": lambda item: item.cpu.used or 0.0,
    "limit": lambda item: float("inf") if item.cpu.limit is None else item.cpu.limit,
    "throttled": lambda item: item.throttled,
    "memory": lambda item: item.memory.used or 0.0,
    "oom": lambda item: item.oom_kills,
}
_TEXTS: dict[str, Callable[[Item], str]] = {
    "name": lambda item: item.name,
    "app": lambda item: item.app,
    "host": lambda item: item.host,
    "state": lambda item: item.state,
}
SORT_KEYS = (*_AMOUNTS, *_TEXTS)


def in_order(items: Iterable[Item], by: str, *, reverse: bool = False) -> list[Item]:
    """Amounts from the largest down, texts from A on; ``reverse`` turns that round.  Equals go by name."""
    named = sorted(items, key=lambda item: (item.name, item.host))
    if by in _AMOUNTS:
        return sorted(named, key=_AMOUNTS[by], reverse=not reverse)
    return sorted(named, key=_TEXTS[by], reverse=reverse)


def descends(by: str, *, reverse: bool = False) -> bool:
    """Whether the largest comes first."""
    return (by in _AMOUNTS) is not reverse


def matching(items: Iterable[Item], words: str) -> list[Item]:
    """Those in whose name, application, host or state every word is found, whatever its case."""
    wanted = words.lower().split()
    return [
        item
        for item in items
        if all(
            any(word in text.lower() for text in (item.name, item.app, item.host, item.state))
            for word in wanted
        )
    ]


# ---- what was ------------------------------------------------------------------------------


def _ring() -> deque[float]:
    return deque(maxlen=FRAMES_KEPT)


@dataclass(frozen=True, slots=True)
class Trace:
    """One item's last frames, the newest at the end."""

    cpu: deque[float] = field(default_factory=_ring)
    cpu_limit: deque[float] = field(default_factory=_ring)
    throttled: deque[float] = field(default_factory=_ring)
    memory: deque[float] = field(default_factory=_ring)
    memory_limit: deque[float] = field(default_factory=_ring)
    oom_kills: deque[float] = field(default_factory=_ring)

    def add(self, item: Item) -> None:
        self.cpu.append(item.cpu.used or 0.0)
        self.cpu_limit.append(_in_force(item.cpu))
        self.throttled.append(item.throttled)
        self.memory.append(item.memory.used or 0.0)
        self.memory_limit.append(_in_force(item.memory))
        self.oom_kills.append(item.oom_kills)

    @property
    def was_killed(self) -> bool:
        """Whether a task was killed for want of memory within the frames kept."""
        return len(self.oom_kills) > 1 and self.oom_kills[-1] > self.oom_kills[0]


def _in_force(use: Use) -> float:
    limit = use.limit if use.held is None else use.held
    return limit or 0.0


class Past:
    """The traces of all that is there; what has gone is forgotten."""

    def __init__(self) -> None:
        self._traces: dict[Key, Trace] = {}

    def add(self, items: Iterable[Item]) -> None:
        """All items of one frame."""
        before, self._traces = self._traces, {}
        for item in items:
            trace = self._traces[item.key] = before.get(item.key) or Trace()
            trace.add(item)

    def of(self, item: Item) -> Trace:
        return self._traces.get(item.key) or Trace()
