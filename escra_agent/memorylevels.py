"""What is told of memory: its level about once a second, and kills at once."""

from collections.abc import Callable

import structlog

from escra_agent.tracked import Tracked, TrackedMemory
from escra_common.messages import MAX_ITEMS, MemoryLevel, MemoryLevels, Message, OomKilled

log = structlog.get_logger()

# Ticks between two levels of one container, and between two looks at what costs more.
LEVEL_EVERY = 10
LOOK_EVERY = 50
# A level that moved by less than this share is not worth a message.
LEVEL_SHARE = 0.01


class MemoryReporter:
    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._ticks = 0
        self._levels: list[MemoryLevel] = []

    def tick(self) -> None:
        """Send what was collected since the last one."""
        self._ticks += 1
        for start in range(0, len(self._levels), MAX_ITEMS):
            self._send(MemoryLevels(self._levels[start : start + MAX_ITEMS]))
        self._levels.clear()

    def visit(self, tracked: Tracked, memory: TrackedMemory, now: float) -> None:
        """Once per tick and container, whose use is known by now."""
        memory.peak_bytes = max(memory.peak_bytes, memory.plan.used_bytes)
        # Spread over the ticks.
        turn = self._ticks + tracked.key
        if turn % LEVEL_EVERY and memory.told is not None:
            return
        self.read(tracked, memory)
        if turn % LOOK_EVERY == 0:
            memory.failures = memory.group.failures()
            if memory.plan.look_is_old(now):
                memory.plan.looked(memory.group.cache_bytes(), now)
        level = memory.level(tracked.key)
        memory.told_all = memory.told is not None and not moved(memory.told, level)
        if not memory.told_all:
            memory.told = level
            self._levels.append(level)
        memory.peak_bytes = 0

    def read(self, tracked: Tracked, memory: TrackedMemory) -> None:
        """All the counters, and word of a kill."""
        before, memory.last = memory.last.oom_kills, memory.group.read()
        kills = memory.last.oom_kills - before
        if kills <= 0:
            return
        failures = memory.group.failures()
        cause = memory.group.cause(memory.failures, failures)
        memory.failures = failures
        # What is left of it is told at the next tick.
        memory.told, memory.peak_bytes = None, 0
        self._send(OomKilled(tracked.key, kills, cause))
        log.warning(
            "killed for want of memory",
            kind="oom_killed",
            app=tracked.candidate.labels.app,
            container=tracked.candidate.name,
            reason=f"{cause}; tasks killed: {kills}",
        )


def moved(told: MemoryLevel, now: MemoryLevel) -> bool:
    """Whether anything was counted, or use, peak or cache are other than told."""

    def counted(level: MemoryLevel) -> tuple[int | None, ...]:
        events = level.high_events, level.max_events, level.oom_events, level.oom_kills
        return (level.limit_bytes, *events)

    return counted(told) != counted(now) or any(
        abs(new - old) > LEVEL_SHARE * told.used_bytes
        for old, new in (
            (told.used_bytes, now.used_bytes),
            (told.peak_bytes, now.peak_bytes),
            (told.cache_bytes, now.cache_bytes),
        )
    )
