"""The history: what applications and containers had, and what they used, over time.

Of containers a row must not miss what happens ten times a second, and must not cost the decisions their
time: a ``Logbook`` hears of whom there is news, looks only at those, and makes a part of the rows each tick.
"""

from collections.abc import Callable, Iterable, Iterator

from escra_common.messages import MemoryLevel
from escra_controller.demand import Interval
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AppsConfigured,
    ContainerAppeared,
    Event,
    LimitsApplied,
    MemoryApplied,
    MemoryArrived,
    SamplesArrived,
)
from escra_controller.rows import cpu_limit_milli, memory_limit_bytes
from escra_controller.state import App, Member, MemberKey, limit_millicores
from escra_controller.storage.values import ContainerRow, HistoryRow
from escra_controller.would import Would

# Of whom there is news is looked at once in so many ticks.  Demand keeps what came since for longer.
LOOK_TICKS = 5
# Every container has a row in so many ticks, but not all of them in one: decisions would have to wait.
ROW_TICKS = 50

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


class Steps:
    """The mean over time of an amount that changes in steps; None when it was none for a while."""

    __slots__ = ("_amount", "_sum")

    def __init__(self, amount: float | None) -> None:
        self._amount = amount
        self._sum: float | None = 0.0

    def step(self, amount: float | None, after_s: float) -> None:
        """It is ``amount`` now, and was what it was before for ``after_s``."""
        if after_s and self._sum is not None:
            self._sum = None if self._amount is None else self._sum + self._amount * after_s
        self._amount = amount

    def take(self, span_s: float) -> float | None:
        """The mean over the ``span_s`` since the last time; it begins anew."""
        total, self._sum = self._sum, 0.0
        if not span_s:
            return self._amount
        return None if total is None else total / span_s


class Tally:
    """What became of one container since its last row.  ``would``: of an observed one."""

    __slots__ = (
        *("_averted", "_covered_s", "_cpu", "_interval", "_level", "_looked_at", "_memory", "_memory_peak"),
        *("_ooms", "_peak", "_since", "_throttled_peak", "_throttled_s", "_used_bytes", "_used_s"),
        *("_would_cpu", "_would_memory", "_would_throttled"),
    )

    def __init__(self, member: Member, would: Would | None, now: float) -> None:
        self._interval: Interval | None = member.demand.latest
        self._level: MemoryLevel | None = member.memory.level
        cpu, memory = cpu_limit_milli(member), memory_limit_bytes(member)
        would_cpu, would_memory, would_throttled = _would_amounts(would, cpu, memory)
        self._cpu, self._memory, self._used_bytes = Steps(cpu), Steps(memory), Steps(_used_bytes(member))
        self._would_cpu, self._would_memory = Steps(would_cpu), Steps(would_memory)
        self._would_throttled = Steps(would_throttled)
        self._looked_at = now
        self._begin(member, now)

    def _begin(self, member: Member, now: float) -> None:
        memory = member.memory
        self._since = now
        self._ooms = (memory.level.oom_events, memory.level.oom_kills) if memory.level else (0, 0)
        self._averted = memory.averted
        self._covered_s = self._used_s = self._throttled_s = self._peak = self._throttled_peak = 0.0
        self._memory_peak = _used_bytes(member)

    def look(self, member: Member, would: Would | None, now: float) -> None:
        """Since the last look the limits were what they were then."""
        self._take_intervals(member)
        level = member.memory.level
        if level is not None and level is not self._level:
            self._level = level
            self._memory_peak = max(self._memory_peak, level.peak_bytes, level.used_bytes)
        after_s, self._looked_at = now - self._looked_at, now
        cpu, memory = cpu_limit_milli(member), memory_limit_bytes(member)
        self._cpu.step(cpu, after_s)
        self._memory.step(memory, after_s)
        self._used_bytes.step(_used_bytes(member), after_s)
        would_cpu, would_memory, would_throttled = _would_amounts(would, cpu, memory)
        self._would_cpu.step(would_cpu, after_s)
        self._would_memory.step(would_memory, after_s)
        self._would_throttled.step(would_throttled, after_s)

    def _take_intervals(self, member: Member) -> None:
        for interval in member.demand.since(self._interval):
            length_s = interval.end - interval.start
            self._covered_s += length_s
            self._used_s += interval.used * length_s
            self._peak = max(self._peak, interval.used)
            if interval.throttled:
                self._throttled_s += interval.throttled * length_s
                self._throttled_peak = max(self._throttled_peak, interval.throttled)
        self._interval = member.demand.latest

    def row(self, member: Member, would: Would | None, at: float, now: float) -> ContainerRow:
        """Everything since the last one; the next begins."""
        self.look(member, would, now)
        info, level, span_s = member.info, member.memory.level, now - self._since
        # The last rate seen holds: an agent leaves out samples that would say the same.
        rest_s, rest = max(0.0, span_s - self._covered_s), member.demand.used()
        length_s = self._covered_s + rest_s
        used = (self._used_s + rest * rest_s) / length_s if length_s else rest
        events, kills = (level.oom_events, level.oom_kills) if level else (0, 0)
        row = ContainerRow(
            at=at,
            span_s=span_s,
            app=info.app,
            host=member.key.host,
            key=member.key.key,
            container=info.name,
            observed=member.state == "observe",
            cpu_limit_milli=self._cpu.take(span_s),
            cpu_used_milli=used,
            cpu_peak_milli=max(self._peak, used),
            cpu_original_milli=limit_millicores(info.original),
            throttled_ratio=self._throttled_s / length_s if length_s else 0.0,
            throttled_peak=self._throttled_peak,
            memory_limit_bytes=self._memory.take(span_s),
            memory_used_bytes=self._used_bytes.take(span_s) or 0.0,
            memory_peak_bytes=self._memory_peak,
            memory_original_bytes=info.memory.original.max_bytes if info.memory else None,
            oom_events=max(0, events - self._ooms[0]),
            oom_kills=max(0, kills - self._ooms[1]),
            oom_averted=max(0, member.memory.averted - self._averted),
            would_cpu_milli=self._would_cpu.take(span_s),
            would_memory_bytes=self._would_memory.take(span_s),
            would_throttled=self._would_throttled.take(span_s),
        )
        self._begin(member, now)
        return row


class Logbook:
    """Tallies of all containers of applications; ``would`` says what observed ones would have."""

    def __init__(self, would: WouldHave = nobody) -> None:
        self._would = would
        self._news: list[set[MemberKey]] = [set() for _ in range(LOOK_TICKS)]
        self._tallies: list[dict[MemberKey, Tally]] = [{} for _ in range(ROW_TICKS)]
        self._tick = 0
        self._anyone = False

    def hear(self, event: Event) -> None:
        """The engine has handled it."""
        match event:
            case (
                SamplesArrived(host, items)
                | MemoryArrived(host, items)
                | LimitsApplied(host, items)
                | MemoryApplied(host, items)
            ):
                for item in items:
                    self._news[item.key % LOOK_TICKS].add(MemberKey(host, item.key))
            case AgentJoined(hello, containers):
                for container in containers:
                    self._news[container.key % LOOK_TICKS].add(MemberKey(hello.host, container.key))
            case ContainerAppeared(host, container):
                self._news[container.key % LOOK_TICKS].add(MemberKey(host, container.key))
            case AppsConfigured():
                self._anyone = True

    def tick(self, engine: Engine, at: float, now: float) -> Iterable[ContainerRow]:
        """Look at whom there is news of, and give the rows whose turn it is; ``at`` is unix time."""
        self._tick += 1
        self._look(engine, now)
        return self._rows(engine, at, now)

    def _look(self, engine: Engine, now: float) -> None:
        if self._anyone:  # may be of an application now
            self._anyone = False
            for key in engine.members:
                self._news[key.key % LOOK_TICKS].add(key)
        turn = self._tick % LOOK_TICKS
        news, self._news[turn] = self._news[turn], set()
        for key in news:
            member = engine.members.get(key)
            if member is None or member.state not in _TOLD:
                continue
            tallies, would = self._tallies[key.key % ROW_TICKS], self._would_have(member)
            if (tally := tallies.get(key)) is None:
                tallies[key] = Tally(member, would, now)
            else:
                tally.look(member, would, now)
            if would is not None:
                # Time alone may change what it would have.
                self._news[turn].add(key)

    def _rows(self, engine: Engine, at: float, now: float) -> Iterator[ContainerRow]:
        """Of containers on hosts that are connected."""
        turn = self._tick % ROW_TICKS
        tallies, self._tallies[turn] = self._tallies[turn], {}
        for key, tally in tallies.items():
            member = engine.members.get(key)
            if member is None or member.state not in _TOLD or not engine.hosts[key.host].connected:
                continue
            self._tallies[turn][key] = tally
            yield tally.row(member, self._would_have(member), at, now)

    def _would_have(self, member: Member) -> Would | None:
        return self._would(member.key) if member.state == "observe" else None


def _used_bytes(member: Member) -> int:
    return member.memory.level.used_bytes if member.memory.level else 0


def _would_amounts(
    would: Would | None, cpu: float | None, memory: float | None
) -> tuple[float | None, float | None, float | None]:
    """Limits, and what they would hold back; what would not be managed would be as it is."""
    if would is None:
        return None, None, None
    return (
        cpu if would.cpu_milli is None else would.cpu_milli,
        memory if would.memory_bytes is None else would.memory_bytes,
        would.throttled,
    )


# The others have no application, or nothing to do with Escra.
_TOLD = frozenset({"managed", "new", "pinned", "observe"})
