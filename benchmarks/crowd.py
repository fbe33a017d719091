"""Hosts that only speak: containers that do not exist, whose counters move as a kernel's would.

A few containers of a host are *eventful* at a time: what they want is another in every tick, they run into
their limit or not, and there is a sample of each.  Once a second one of them falls idle, and the next one
wakes.  Orders are in force at once, and acknowledged.  All else is silent, as an agent would be.
"""

import random

from escra_common.messages import (
    Ack,
    Applied,
    Container,
    ContainerMemory,
    CpuLimit,
    Hello,
    MemoryAck,
    MemoryApplied,
    MemoryLevel,
    MemoryLevels,
    MemoryLimit,
    Message,
    SetLimits,
    SetMemory,
    Snapshot,
)
from escra_common.session import hello

TICK_S = 0.1
PERIOD_USEC = 100_000
ROTATE_TICKS = 10
CAME_WITH_MEMORY = MemoryLimit(256 << 20)
USES_BYTES = 96 << 20
CPUS = 64
MEMORY_BYTES = 256 << 30

# A sample on the wire is a row of these.
USAGE, PERIODS, THROTTLED, LOST, WRITES, REV = range(2, 8)

_draw = random.Random(7)
# What an eventful container wants of its own level, tick after tick.
_NOISE = [_draw.uniform(0.8, 1.2) for _ in range(1021)]

Row = list[int]


class CrowdHost:
    """Host ``number`` with ``containers`` of one application, so many of them ``eventful`` at a time.

    Each came with a limit of ``level`` millicores, and wants a fifth of it or up to a fifth more.
    """

    def __init__(self, number: int, containers: int, app: str, eventful: int, level: int = 500) -> None:
        self.name = f"host{number}"
        self.samples = self.changes = 0
        self._app = app
        self._came_with = CpuLimit(level * 100, PERIOD_USEC)
        self._first = number << 20
        self._rows = [[self._first + n, 0, 0, 0, 0, 0, 0, 0] for n in range(containers)]
        # In millicores: what is in force, and what each wants when it works.
        self._limits = [level] * containers
        self._wants = [
            random.Random(self._first + n).randrange(level // 5, level * 6 // 5) for n in range(containers)
        ]
        self._sizes: dict[int, MemoryLimit] = {}
        self._without_limit = containers
        self._eventful = list(range(eventful))
        self._told = 0
        self._tick = number % ROTATE_TICKS  # hosts do not rotate all at once

    @property
    def admitted(self) -> bool:
        """Whether every container has had its first limit."""
        return self._without_limit == 0

    def hello(self) -> Hello:
        return hello(
            "agent", self.name, boot_id=self.name, cpus=CPUS, memory_bytes=MEMORY_BYTES, cgroup_version="v2"
        )

    def snapshot(self) -> list[Message]:
        """As it is now: what was ordered is in force."""
        containers = [
            Container(
                *(row[0], f"{row[0]:064x}", f"{self.name}-{n}", self._app, f"/docker/{row[0]:064x}", "auto"),
                self._came_with,
                CpuLimit(limit * 100, PERIOD_USEC),
                managed=row[REV] > 0,
                cap_milli=1000 * CPUS,
                memory=ContainerMemory(CAME_WITH_MEMORY, memory, managed, USES_BYTES),
            )
            for n, (row, limit) in enumerate(zip(self._rows, self._limits, strict=True))
            for memory, managed in [self._memory(row[0])]
        ]
        levels = [MemoryLevel(row[0], USES_BYTES, 256 << 20, peak_bytes=USES_BYTES) for row in self._rows]
        return [Snapshot(containers), MemoryLevels(levels)]

    def _memory(self, key: int) -> tuple[MemoryLimit, bool]:
        return (self._sizes[key], True) if key in self._sizes else (CAME_WITH_MEMORY, False)

    def rows(self, now_usec: int) -> list[Row]:
        """The samples of one tick; in the first two every container says that it is there, and idle."""
        if self._told < 2:
            return self._tell_all(now_usec)
        self._tick += 1
        noise, n_noise = _NOISE, len(_NOISE)
        rows = []
        for n in self._eventful:
            row = self._rows[n]
            wanted = self._wants[n] * noise[(self._tick + 37 * n) % n_noise]
            limit = self._limits[n]
            row[1] = now_usec
            row[PERIODS] += 1
            if wanted > limit:
                row[USAGE] += limit * 100
                row[THROTTLED] += 1
                row[LOST] += int(wanted - limit) * 100
            else:
                row[USAGE] += int(wanted) * 100
            rows.append(row)
        if self._tick % ROTATE_TICKS == 0:
            rows.append(self._rotate(now_usec))
        self.samples += len(rows)
        return rows

    def _tell_all(self, now_usec: int) -> list[Row]:
        self._told += 1
        for row in self._rows:
            row[1] = now_usec
        self.samples += len(self._rows)
        return self._rows

    def _rotate(self, now_usec: int) -> Row:
        """One falls idle, and says so once; another is eventful from the next tick on."""
        idle = self._eventful.pop(0)
        self._eventful.append((self._eventful[-1] + 1 if self._eventful else idle + 1) % len(self._rows))
        # Its last sample was of this tick: the one that says "no use" is of a moment later.
        row = self._rows[idle].copy()
        row[1] = now_usec + 1000
        return row

    def obey(self, orders: SetLimits) -> Applied:
        acks = []
        for order in orders.orders:
            n = order.key - self._first
            row = self._rows[n]
            self._without_limit -= row[REV] == 0
            row[WRITES] += 1
            row[REV] = order.rev
            self._limits[n] = order.cpu_milli
            quota, burst = order.cpu_milli * 100, order.burst_milli * 100
            acks.append(Ack(order.key, order.rev, CpuLimit(quota, PERIOD_USEC, burst)))
        self.changes += len(acks)
        return Applied(acks)

    def obey_memory(self, orders: SetMemory) -> MemoryApplied:
        self.changes += len(orders.orders)
        self._sizes |= {order.key: MemoryLimit(order.max_bytes) for order in orders.orders}
        return MemoryApplied(
            [
                MemoryAck(order.key, order.rev, MemoryLimit(order.max_bytes), needed_bytes=USES_BYTES)
                for order in orders.orders
            ]
        )
