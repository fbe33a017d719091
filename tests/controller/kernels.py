"""Simulated kernels: one container's CPU and memory, with limits that hold and tasks that want more."""

from dataclasses import dataclass, field

from escra_common.messages import Container, CpuLimit, MemoryLevel
from escra_controller.events import SetMemoryLimit

PERIOD_USEC = 100_000


@dataclass
class Memory:
    """A container's memory cgroup, as v1 has it: tasks that want more than the limit pause, until it
    is raised or somebody says that they shall be killed.
    """

    used: int = 0
    cache: int = 0
    limit: int | None = None
    managed: bool = False
    want: int = 0
    serial: int = 0
    kills: int = 0
    ceiling: int = 0
    rev: int = 0

    @property
    def held(self) -> int:
        """The limit, where there must be one."""
        assert self.limit is not None
        return self.limit

    @property
    def paused(self) -> bool:
        return self.want > self.used

    def run(self) -> None:
        """Tasks touch what they want, as far as the limit lets them; file cache makes room."""
        self.used = self.want if self.limit is None else min(self.want, max(self.used, self.limit))
        if self.limit is not None:
            self.cache = min(self.cache, self.limit - min(self.used, self.limit))

    def kill(self) -> None:
        self.kills += 1
        self.used = self.want = 0

    def order(self, order: SetMemoryLimit) -> None:
        """A cut goes as far as it harms nobody."""
        present, self.rev = self.limit, order.rev
        self.ceiling = order.max_bytes + order.headroom_bytes if order.headroom_bytes else 0
        least = self.used + order.margin_bytes
        if present is not None and order.max_bytes >= present:
            self.limit, self.managed = order.max_bytes, True
        elif not self.managed:
            if order.max_bytes >= least:
                self.limit, self.managed = order.max_bytes, True
        elif present is not None:
            self.limit = min(present, max(order.max_bytes, least))
        self.run()


@dataclass
class Kernel:
    """One container's cgroup; amounts in millicores, ``limit`` None is no limit.

    Up to ``ceiling`` its agent may go by itself.
    """

    info: Container
    want: float = 0.0
    limit: int | None = None
    managed: bool = False
    ceiling: int = 0
    rev: int = 0
    writes: int = 0
    usage_usec: int = 0
    nr_periods: int = 0
    nr_throttled: int = 0
    memory: Memory = field(default_factory=Memory)

    @property
    def held(self) -> int:
        """The limit, where there must be one."""
        assert self.limit is not None
        return self.limit

    def run(self) -> None:
        """One period."""
        self.memory.run()
        if self.want <= 0:
            return
        used = self.want if self.limit is None else min(self.want, self.limit)
        self.usage_usec += round(used * PERIOD_USEC / 1000)
        self.nr_periods += 1
        self.nr_throttled += self.limit is not None and self.want > self.limit

    def in_force(self) -> CpuLimit:
        return CpuLimit(None if self.limit is None else self.limit * PERIOD_USEC // 1000, PERIOD_USEC)


def level(kernel: Kernel) -> MemoryLevel:
    memory = kernel.memory
    used = memory.used + memory.cache
    return MemoryLevel(kernel.info.key, used, memory.limit, 0, memory.kills, used, memory.cache)
