"""A container as it would be under limits that nobody writes.

What was measured is what it did under its real limits.  Under lower ones it would have done less, and the
rest would have been throttled, or would have waited for memory.  Under higher ones it might have done more,
but nobody has seen that: work that was held back in reality is not in what was measured.
"""

from dataclasses import dataclass, field
from math import ceil

import msgspec

from escra_common.messages import (
    Ack,
    Container,
    CpuLimit,
    MemoryAck,
    MemoryLevel,
    MemoryLimit,
    MemoryNeed,
    Sample,
)
from escra_common.units import quota_usec
from escra_controller.events import SetLimit, SetMemoryLimit
from escra_controller.state import charge_millicores

# Measured use passes a quota by as much (K2): that is not work held back.
TOLERANCE = 0.02
# Who has been denied memory asks again once a second, as an agent's container at its limit does.
ASK_AGAIN_S = 1.0


@dataclass(slots=True)
class ImaginedCpu:
    """``real`` is the limit in force, ``limit`` the one it would have; None: nobody manages it.

    ``throttled`` is the share of the last interval's work that ``limit`` would have held back.
    """

    real: CpuLimit
    limit: CpuLimit | None = None
    rev: int = 0
    throttled: float = 0.0
    _most: int | None = None
    _seen: Sample | None = None
    _usage_usec: int = 0
    _nr_periods: int = 0
    _nr_throttled: int = 0

    def write(self, limit: CpuLimit | None, rev: int) -> Ack:
        self.limit, self.rev = limit, rev
        # A limit that moved within an interval is judged by the largest it was.
        if limit is None or self._most is not None:
            self._most = None if limit is None else max(self._most or 0, charge_millicores(limit) or 0)
        return Ack(1, rev, limit or self.real)

    def sample(self, seen: Sample) -> Sample:
        """The counters as they would be; ``seen`` are those of the kernel."""
        before, self._seen = self._seen, seen
        most, self._most = self._most, charge_millicores(self.limit) if self.limit else None
        if before is not None and seen.time_usec > before.time_usec and seen.usage_usec >= before.usage_usec:
            self._pass(before, seen, most)
        return msgspec.structs.replace(
            seen,
            usage_usec=self._usage_usec,
            nr_periods=self._nr_periods,
            nr_throttled=self._nr_throttled,
            throttled_usec=0,
            writes=0,
            rev=self.rev,
        )

    def _pass(self, before: Sample, seen: Sample, most: int | None) -> None:
        elapsed_usec = seen.time_usec - before.time_usec
        used_usec = seen.usage_usec - before.usage_usec
        may_usec = used_usec if most is None else min(used_usec, most * elapsed_usec // 1000)
        held_back = used_usec > may_usec * (1 + TOLERANCE)
        self.throttled = 1 - may_usec / used_usec if held_back else 0.0
        periods = max(1, round(elapsed_usec / self.real.period_usec))
        self._usage_usec += may_usec
        self._nr_periods += periods
        if held_back:
            self._nr_throttled += periods
        elif most is not None and most <= (charge_millicores(self.real) or 0):
            # It was held back by a limit that was no lower than this one.
            real = max(0, seen.nr_periods - before.nr_periods), seen.nr_throttled - before.nr_throttled
            self._nr_throttled += (
                ceil(periods * min(1.0, real[1] / real[0])) if real[0] and real[1] > 0 else 0
            )


@dataclass(slots=True)
class ImaginedMemory:
    """Bytes.  ``limit`` is the one it would have, None: nobody manages it.

    ``needed`` is what it really uses without file cache.  ``kills`` counts how often it would have been
    killed: it went past ``limit``, and there was no more for it.
    """

    real: int | None
    needed: int = 0
    limit: int | None = None
    rev: int = 0
    kills: int = 0
    _wants_more: bool = False
    _growth: int = 0
    _serial: int = 0
    _asking: bool = False
    _dead: bool = False
    _asked_at: float = float("-inf")
    _measured_at: float | None = None

    @property
    def beyond(self) -> bool:
        """Whether it is past its limit, or waits at it."""
        return self.limit is not None and (self.needed > self.limit or self._wants_more)

    def measure(self, level: MemoryLevel, now: float) -> MemoryLevel:
        """The level as it would be: file cache gives way to the limit first, then tasks wait."""
        needed, limit = max(0, level.used_bytes - level.cache_bytes), self.limit
        if self._measured_at is not None and now > self._measured_at:
            self._growth = max(0, round((needed - self.needed) / (now - self._measured_at)))
        self.needed, self._measured_at, self._wants_more = needed, now, False
        if not self.beyond:
            self._dead = False
        if limit is None:
            return level
        used = min(level.used_bytes, limit)
        return msgspec.structs.replace(
            level,
            used_bytes=used,
            limit_bytes=limit,
            cache_bytes=used - min(needed, used),
            peak_bytes=min(level.peak_bytes, limit),
        )

    def waited(self, need: MemoryNeed) -> None:
        """In reality it was about to run out, at a limit of its own."""
        self.needed, self._growth = need.needed_bytes, need.growth
        self._wants_more = self.limit is not None and self.limit <= need.limit_bytes

    def need(self, key: int, now: float) -> MemoryNeed | None:
        """What it would ask for now, if it would."""
        again = not self._dead or now - self._asked_at >= ASK_AGAIN_S
        if not self.beyond or self._asking or not again or self.limit is None:
            return None
        self._serial, self._asking, self._asked_at = self._serial + 1, True, now
        return MemoryNeed(key, self._serial, self.limit, self.needed, self._growth, True, round(now * 1e6))

    def deny(self) -> bool:
        """Whether that kills it: only what is alive can be."""
        self._asking, killed, self._dead = False, not self._dead, True
        self.kills += killed
        return killed

    def order(self, order: SetMemoryLimit) -> MemoryAck:
        """A first limit is carried out wholly or not at all, a cut as far as it harms nobody."""
        self.rev, self._asking = order.rev, False
        least = self.needed + order.margin_bytes
        if self.limit is None:
            fits = order.max_bytes >= least or (self.real is not None and order.max_bytes >= self.real)
            self.limit = order.max_bytes if fits else None
        elif order.max_bytes > self.limit:
            self.limit, self._wants_more = order.max_bytes, False
        else:
            self.limit = min(self.limit, max(order.max_bytes, least))
        held = self.real if self.limit is None else self.limit
        return MemoryAck(order.key, order.rev, MemoryLimit(held), self.needed)


@dataclass(slots=True)
class Imagined:
    """``info`` is the container as its agent describes it."""

    info: Container
    cpu: ImaginedCpu = field(init=False)
    memory: ImaginedMemory = field(init=False)

    def __post_init__(self) -> None:
        memory = self.info.memory
        self.cpu = ImaginedCpu(self.info.in_force)
        self.memory = ImaginedMemory(
            memory.in_force.max_bytes if memory else None, memory.needed_bytes if memory else 0
        )

    def describe(self) -> Container:
        """As an agent would that manages it."""
        info, cpu, limit = self.info, self.cpu.limit, self.memory.limit
        memory = info.memory
        if memory is not None:
            in_force = memory.in_force if limit is None else MemoryLimit(limit)
            memory = msgspec.structs.replace(
                memory, managed=limit is not None, in_force=in_force, needed_bytes=self.memory.needed
            )
        return msgspec.structs.replace(
            info,
            mode="off" if info.mode == "off" else "auto",
            managed=cpu is not None,
            in_force=cpu or info.in_force,
            memory=memory,
        )

    def set(self, order: SetLimit) -> Ack:
        period = self.cpu.real.period_usec
        limit = CpuLimit(quota_usec(order.cpu_milli, period), period, order.burst_milli * period // 1000)
        return msgspec.structs.replace(self.cpu.write(limit, order.rev), key=order.key)

    def release(self, key: int, rev: int) -> tuple[Ack, MemoryAck]:
        self.memory.limit = None
        ack = msgspec.structs.replace(self.cpu.write(None, rev), key=key)
        return ack, MemoryAck(key, rev, MemoryLimit(self.memory.real), self.memory.needed)
