"""Simulated kernels behind a slow network: what the engine's promises are checked against.

The world knows what each kernel really holds.  Orders and acknowledgements travel with delays of
their own choosing; a connection that breaks loses what was on its way.
"""

from collections import deque
from dataclasses import dataclass, field

import msgspec

from escra_common.messages import Ack, Container, CpuLimit, Sample
from escra_common.session import hello
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AgentLeft,
    AppsConfigured,
    AppSpec,
    ContainerAppeared,
    ContainerGone,
    Decision,
    Event,
    Instruction,
    LimitsApplied,
    ReleaseContainer,
    SamplesArrived,
    SetLimit,
    Ticked,
)
from escra_controller.policy import Settings

PERIOD_USEC = 100_000
TICK_S = 0.1


def spec(name: str = "shop", cpu: int = 3000, **more: int) -> AppSpec:
    return AppSpec(name, cpu, 1 << 30, **more)


@dataclass
class Kernel:
    """One container's cgroup; amounts in millicores, ``limit`` None is no limit."""

    info: Container
    want: float = 0.0
    limit: int | None = None
    managed: bool = False
    rev: int = 0
    writes: int = 0
    usage_usec: int = 0
    nr_periods: int = 0
    nr_throttled: int = 0

    @property
    def held(self) -> int:
        """The limit, where there must be one."""
        assert self.limit is not None
        return self.limit

    def run(self) -> None:
        """One period."""
        if self.want <= 0:
            return
        used = self.want if self.limit is None else min(self.want, self.limit)
        self.usage_usec += round(used * PERIOD_USEC / 1000)
        self.nr_periods += 1
        self.nr_throttled += self.limit is not None and self.want > self.limit

    def in_force(self) -> CpuLimit:
        return CpuLimit(None if self.limit is None else self.limit * PERIOD_USEC // 1000, PERIOD_USEC)


@dataclass
class Host:
    kernels: dict[int, Kernel] = field(default_factory=dict)
    connected: bool = False
    orders: deque[Instruction] = field(default_factory=deque)
    acks: deque[Ack] = field(default_factory=deque)


class World:
    def __init__(self, *specs: AppSpec, settings: Settings | None = None, grace_s: float = 0.0) -> None:
        self.now = 0.0
        self.engine = Engine(settings, self.now, grace_s)
        self.hosts: dict[str, Host] = {}
        self.decisions: list[Decision] = []
        self._next_key = 1
        self.handle(AppsConfigured(specs or (spec(),)))

    def handle(self, event: Event) -> None:
        for instruction in self.engine.handle(event, self.now):
            match instruction:
                case SetLimit(host) | ReleaseContainer(host):
                    if self.hosts[host].connected:
                        self.hosts[host].orders.append(instruction)
                case Decision():
                    self.decisions.append(instruction)
        self.check()

    # ---- hosts and containers ------------------------------------------------------

    def join(self, name: str) -> Host:
        host = self.hosts.setdefault(name, Host())
        host.connected = True
        host.orders.clear()
        host.acks.clear()
        for kernel in host.kernels.values():
            kernel.rev = 0
        listed = [self.describe(kernel) for kernel in host.kernels.values()]
        self.handle(AgentJoined(hello("agent", name, boot_id=name), listed))
        return host

    def part(self, name: str) -> None:
        """What was on its way is lost, in both directions."""
        host = self.hosts[name]
        host.connected = False
        host.orders.clear()
        host.acks.clear()
        self.handle(AgentLeft(name, "the connection broke"))

    def add(self, host: str, want: float = 0.0, *, app: str = "shop", **info: object) -> Kernel:
        key, self._next_key = self._next_key, self._next_key + 1
        none = CpuLimit(None, PERIOD_USEC)
        fields: dict[str, object] = {"mode": "auto", "original": none, "in_force": none} | info
        container = Container(key=key, id=f"id{key}", name=f"c{key}", app=app, cgroup=f"/c{key}", **fields)  # type: ignore[arg-type]
        quota = container.original.quota_usec
        kernel = Kernel(container, want, None if quota is None else quota * 1000 // PERIOD_USEC)
        self.hosts[host].kernels[key] = kernel
        if self.hosts[host].connected:
            self.handle(ContainerAppeared(host, self.describe(kernel)))
        return kernel

    def remove(self, host: str, kernel: Kernel) -> None:
        del self.hosts[host].kernels[kernel.info.key]
        if self.hosts[host].connected:
            self.handle(ContainerGone(host, kernel.info.key))

    def describe(self, kernel: Kernel) -> Container:
        return msgspec.structs.replace(kernel.info, in_force=kernel.in_force(), managed=kernel.managed)

    # ---- time ----------------------------------------------------------------------

    def deliver_order(self, name: str) -> bool:
        """The next order of this host reaches its kernel; false when none is under way."""
        host = self.hosts[name]
        if not host.orders:
            return False
        order = host.orders.popleft()
        assert isinstance(order, SetLimit | ReleaseContainer)
        kernel = host.kernels.get(order.key)
        if kernel is None:
            return True
        if isinstance(order, SetLimit):
            kernel.limit, kernel.managed = order.cpu_milli, True
        else:
            quota = kernel.info.original.quota_usec
            kernel.limit = None if quota is None else quota * 1000 // PERIOD_USEC
            kernel.managed = False
        kernel.rev, kernel.writes = order.rev, kernel.writes + 1
        host.acks.append(Ack(order.key, order.rev, kernel.in_force()))
        self.check()
        return True

    def deliver_ack(self, name: str) -> bool:
        host = self.hosts[name]
        if not host.acks:
            return False
        self.handle(LimitsApplied(name, [host.acks.popleft()]))
        return True

    def settle(self) -> None:
        """Everything under way arrives, until nothing is."""
        for _ in range(1000):
            if not any(self.deliver_order(n) | self.deliver_ack(n) for n in list(self.hosts)):
                return
        raise AssertionError("orders without end")

    def tick(self, *, settle: bool = True) -> None:
        """One period passes everywhere, then every connected agent sends its samples."""
        self.now = round(self.now + TICK_S, 6)
        for name, host in self.hosts.items():
            for kernel in host.kernels.values():
                kernel.run()
            if host.connected:
                self.handle(SamplesArrived(name, [self._sample(k) for k in host.kernels.values()]))
        self.handle(Ticked())
        if settle:
            self.settle()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def _sample(self, k: Kernel) -> Sample:
        time_usec = round(self.now * 1e6)
        return Sample(k.info.key, time_usec, k.usage_usec, k.nr_periods, k.nr_throttled, 0, k.writes, k.rev)

    # ---- what must be true ---------------------------------------------------------

    def held(self, app: str = "shop") -> int:
        """The sum of the limits that Escra put into the kernels of all hosts that have ever said hello."""
        return sum(
            kernel.limit or 0
            for name, host in self.hosts.items()
            for kernel in host.kernels.values()
            if name in self.engine.hosts and kernel.managed and kernel.info.app == app
        )

    def check(self) -> None:
        self.engine.check()
        for name, app in self.engine.apps.items():
            counted, held = app.ledger.counted, self.held(name)
            assert held <= counted, f"the kernels hold {held}, the ledger counts {counted}"

    def rules(self, kernel: Kernel) -> list[str]:
        return [d.rule for d in self.decisions if d.key == kernel.info.key]
