"""The history: what applications and containers had, and what they used, over time.

Of containers a row must not miss what happens ten times a second, and must not cost the decisions their
time: a ``Logbook`` looks at a part of them each tick, and takes what came since it looked last.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from escra_common.messages import MemoryLevel
from escra_controller.demand import Interval
from escra_controller.engine import Engine
from escra_controller.rows import cpu_limit_milli, memory_limit_bytes
from escra_controller.state import App, Member, MemberKey, limit_millicores
from escra_controller.storage.values import ContainerRow, HistoryRow
from escra_controller.would import Would

# Every container is looked at once in so many ticks.  Demand keeps what came since for longer.
LOOK_TICKS = 5

WouldHave = Callable[[MemberKey], Would | None]


def history_row(app: App, at: float) -> HistoryRow:
    """``at`` is unix time."""
    members = list(app.members.values())
    throttled = [m.demand.latest.throttled for m in members if m.demand.latest]
    return HistoryRow(
        at=at,
        app=app.spec.name,
        cpu_limit_milli=app.spec.cpu,
        cpu_allocated_milli=app.ledger.counted,
        cpu_used_milli=round(sum(m.demand.used() for m in members)),
        memory_limit_bytes=app.spec.memory,
        memory_allocated_bytes=app.memory.counted,
        memory_used_bytes=sum(m.memory.level.used_bytes for m in members if m.memory.level),
        containers=len(members),
        hosts=len({m.key.host for m in members}),
        throttled_ratio=sum(throttled) / len(throttled) if throttled else 0.0,
    )


def nobody(_: MemberKey) -> Would | None:
    """Nothing is observed."""
    return None


@dataclass(slots=True)
class Levels:
    """The sum of what was seen at the looks; None once there was no limit."""

    looks: int = 0
    cpu: float | None = 0.0
    memory: float | None = 0.0

    def add(self, cpu: float | None, memory: float | None) -> None:
        self.looks += 1
        self.cpu = None if cpu is None or self.cpu is None else self.cpu + cpu
        self.memory = None if memory is None or self.memory is None else self.memory + memory

    def means(self) -> tuple[float | None, float | None]:
        return (
            None if self.cpu is None or not self.looks else self.cpu / self.looks,
            None if self.memory is None or not self.looks else self.memory / self.looks,
        )


class Tally:
    """What became of one container since its last row."""

    __slots__ = (
        *("_averted", "_covered_s", "_interval", "_level", "_limits", "_memory_peak", "_ooms", "_peak"),
        *("_since", "_throttled_peak", "_throttled_s", "_used_s", "_uses", "_would", "_would_throttled"),
    )

    def __init__(self, member: Member, now: float) -> None:
        self._interval: Interval | None = member.demand.latest
        self._level: MemoryLevel | None = None
        self._begin(member, now)

    def _begin(self, member: Member, now: float) -> None:
        memory = member.memory
        self._since = now
        self._ooms = (memory.level.oom_events, memory.level.oom_kills) if memory.level else (0, 0)
        self._averted = memory.averted
        self._covered_s = self._used_s = self._throttled_s = self._peak = self._throttled_peak = 0.0
        self._memory_peak = memory.level.used_bytes if memory.level else 0
        self._limits, self._uses, self._would = Levels(), Levels(), Levels()
        self._would_throttled = 0.0

    def look(self, member: Member, would: Would | None) -> None:
        for interval in member.demand.since(self._interval):
            length_s = interval.end - interval.start
            self._covered_s += length_s
            self._used_s += interval.used * length_s
            self._peak = max(self._peak, interval.used)
            if interval.throttled:
                self._throttled_s += interval.throttled * length_s
                self._throttled_peak = max(self._throttled_peak, interval.throttled)
        self._interval = member.demand.latest
        level = member.memory.level
        if level is not None and level is not self._level:
            self._level = level
            self._memory_peak = max(self._memory_peak, level.peak_bytes, level.used_bytes)
        cpu, memory = cpu_limit_milli(member), memory_limit_bytes(member)
        self._limits.add(cpu, memory)
        self._uses.add(0.0, level.used_bytes if level else 0)
        if would is not None:
            self._would.add(
                cpu if would.cpu_milli is None else would.cpu_milli,
                memory if would.memory_bytes is None else would.memory_bytes,
            )
            self._would_throttled += would.throttled

    def row(self, member: Member, at: float, now: float) -> ContainerRow:
        """Everything since the last one; the next begins."""
        info, level, span_s = member.info, member.memory.level, now - self._since
        # The last rate seen holds: an agent leaves out samples that would say the same.
        rest_s, rest = max(0.0, span_s - self._covered_s), member.demand.used()
        length_s = self._covered_s + rest_s
        used = (self._used_s + rest * rest_s) / length_s if length_s else rest
        cpu_limit, memory_limit = self._limits.means()
        would_cpu, would_memory = self._would.means()
        events, kills = (level.oom_events, level.oom_kills) if level else (0, 0)
        row = ContainerRow(
            at=at,
            span_s=span_s,
            app=info.app,
            host=member.key.host,
            key=member.key.key,
            container=info.name,
            observed=member.state == "observe",
            cpu_limit_milli=cpu_limit,
            cpu_used_milli=used,
            cpu_peak_milli=max(self._peak, used),
            cpu_original_milli=limit_millicores(info.original),
            throttled_ratio=self._throttled_s / length_s if length_s else 0.0,
            throttled_peak=self._throttled_peak,
            memory_limit_bytes=memory_limit,
            memory_used_bytes=self._uses.means()[1] or 0.0,
            memory_peak_bytes=self._memory_peak,
            memory_original_bytes=info.memory.original.max_bytes if info.memory else None,
            oom_events=max(0, events - self._ooms[0]),
            oom_kills=max(0, kills - self._ooms[1]),
            oom_averted=max(0, member.memory.averted - self._averted),
            would_cpu_milli=would_cpu,
            would_memory_bytes=would_memory,
            would_throttled=self._would_throttled / self._would.looks if self._would.looks else None,
        )
        self._begin(member, now)
        return row


class Logbook:
    """Tallies of all containers of applications; ``would`` says what observed ones would have."""

    def __init__(self, would: WouldHave = nobody) -> None:
        self._would = would
        self._tallies: dict[MemberKey, Tally] = {}
        self._tick = 0

    def look(self, engine: Engine, now: float) -> None:
        """Once per tick."""
        self._tick += 1
        for key, member in list(engine.members.items())[self._tick % LOOK_TICKS :: LOOK_TICKS]:
            if member.state not in _TOLD:
                continue
            if (tally := self._tallies.get(key)) is None:
                tally = self._tallies[key] = Tally(member, now)
            tally.look(member, self._would(key) if member.state == "observe" else None)

    def rows(self, engine: Engine, at: float, now: float) -> Iterator[ContainerRow]:
        """One for each container that was there to look at, on hosts that are connected; ``at`` is unix."""
        tallies, self._tallies = self._tallies, {}
        for key, tally in tallies.items():
            member = engine.members.get(key)
            if member is None or member.state not in _TOLD or not engine.hosts[key.host].connected:
                continue
            self._tallies[key] = tally
            yield tally.row(member, at, now)


# The others have no application, or nothing to do with Escra.
_TOLD = frozenset({"managed", "new", "pinned", "observe"})
