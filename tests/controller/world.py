"""Simulated kernels behind a slow network: what the engine's promises are checked against.

The world knows what each kernel really holds.  Orders and acknowledgements travel with delays of
their own choosing; a connection that breaks loses what was on its way.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from escra_common.messages import (
    Ack,
    Container,
    ContainerMemory,
    CpuLimit,
    MemoryAck,
    MemoryDrawn,
    MemoryLimit,
    MemoryNeed,
    OomKilled,
    Sample,
)
from escra_common.session import hello
from escra_controller.bounds import NOTHING, Bound
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AgentLeft,
    AppsConfigured,
    AppSpec,
    ContainerAppeared,
    ContainerGone,
    Decision,
    DenyNeed,
    Event,
    LimitsApplied,
    MemoryApplied,
    MemoryArrived,
    MemoryDrew,
    MemoryNeeded,
    ReleaseContainer,
    SamplesArrived,
    Secure,
    Secured,
    SendTerms,
    SetLimit,
    SetMemoryLimit,
    TasksKilled,
    Ticked,
)
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings
from tests.controller.kernels import PERIOD_USEC, Kernel, Memory, level

LimitOrder = SetLimit | SetMemoryLimit | DenyNeed | ReleaseContainer

TICK_S = 0.1
MIB = 1 << 20


def spec(name: str = "shop", cpu: int = 3000, memory: int = 1 << 30, **more: Any) -> AppSpec:
    return AppSpec(name, cpu, memory, **more)


@dataclass
class Host:
    kernels: dict[int, Kernel] = field(default_factory=dict)
    connected: bool = False
    orders: deque[LimitOrder] = field(default_factory=deque)
    acks: deque[Ack | MemoryAck] = field(default_factory=deque)


class World:
    def __init__(
        self,
        *specs: AppSpec,
        settings: Settings | None = None,
        grace_s: float = 0.0,
        memory: MemorySettings | None = None,
        disk: dict[tuple[str, str], Bound] | None = None,
    ) -> None:
        """``disk``: bounds are kept there, each when it is its turn; None is a controller without one."""
        self.now = 0.0
        self.disk = disk
        self.writing: deque[Secure] = deque()
        self._most: dict[str, Bound] = {}
        self.hosts: dict[str, Host] = {}
        self.decisions: list[Decision] = []
        self._next_key = 1
        self._settings, self._grace_s, self._memory = settings, grace_s, memory
        self.specs = specs or (spec(),)
        self.start()

    def start(self) -> None:
        """A controller starts, from what is on the disk."""
        self.engine: Engine = Engine(self._settings, self.now, self._grace_s, self._memory, self.disk)
        self.handle(AppsConfigured(self.specs))

    def crash(self) -> None:
        """The controller starts anew, without all that was not on the disk; its connections are broken.

        Orders that were on their way may still arrive, until their host has noticed.
        """
        self.writing.clear()
        for host in self.hosts.values():
            host.connected = False
            host.acks.clear()
        self.start()

    def write(self) -> bool:
        """The next bound becomes durable; false when none waits."""
        if not self.writing or self.disk is None:
            return False
        secure = self.writing.popleft()
        if secure.bound == NOTHING:
            self.disk.pop((secure.host, secure.app), None)
        else:
            self.disk[secure.host, secure.app] = secure.bound
        self.handle(Secured(secure.app, secure.host, secure.bound))
        return True

    def handle(self, event: Event) -> None:
        for instruction in self.engine.handle(event, self.now):
            match instruction:
                case Decision():
                    self.decisions.append(instruction)
                case Secure():
                    self.writing.append(instruction)
                case SendTerms():
                    pass
                case _ if self.hosts[instruction.host].connected:
                    self.hosts[instruction.host].orders.append(instruction)
        self.check()

    # ---- hosts and containers ------------------------------------------------------

    def join(self, name: str, **facts: object) -> Host:
        """``facts`` are what its HELLO says beside its name."""
        host = self.hosts.setdefault(name, Host())
        host.connected = True
        host.orders.clear()
        host.acks.clear()
        for kernel in host.kernels.values():
            kernel.rev = kernel.ceiling = 0
        listed = [self.describe(kernel) for kernel in host.kernels.values()]
        self.handle(AgentJoined(hello("agent", name, boot_id=name, **facts), listed))
        return host

    def part(self, name: str) -> None:
        """What was on its way is lost, in both directions."""
        host = self.hosts[name]
        host.connected = False
        host.orders.clear()
        host.acks.clear()
        self.handle(AgentLeft(name, "the connection broke"))

    def add(
        self,
        host: str,
        want: float = 0.0,
        *,
        app: str = "shop",
        memory: Memory | None = None,
        **info: object,
    ) -> Kernel:
        key, self._next_key = self._next_key, self._next_key + 1
        none = CpuLimit(None, PERIOD_USEC)
        fields: dict[str, object] = {"mode": "auto", "original": none, "in_force": none} | info
        container = Container(key=key, id=f"id{key}", name=f"c{key}", app=app, cgroup=f"/c{key}", **fields)  # type: ignore[arg-type]
        quota = container.original.quota_usec
        kernel = Kernel(container, want, None if quota is None else quota * 1000 // PERIOD_USEC)
        if memory is not None:
            original = ContainerMemory(MemoryLimit(memory.limit), MemoryLimit(memory.limit))
            kernel.info = msgspec.structs.replace(kernel.info, memory=original)
            kernel.memory = memory
        self.hosts[host].kernels[key] = kernel
        if self.hosts[host].connected:
            self.handle(ContainerAppeared(host, self.describe(kernel)))
        return kernel

    def move(self, host: str, kernel: Kernel, app: str) -> None:
        """To another application, with all that it holds and that is on its way: Ω has no say in that."""
        held = self._most.get(kernel.info.app, NOTHING)
        self._most[app] = self._most.get(app, NOTHING).plus(held)
        kernel.info = msgspec.structs.replace(kernel.info, app=app)
        self.handle(ContainerAppeared(host, self.describe(kernel)))

    def remove(self, host: str, kernel: Kernel) -> None:
        del self.hosts[host].kernels[kernel.info.key]
        if self.hosts[host].connected:
            self.handle(ContainerGone(host, kernel.info.key))

    def describe(self, kernel: Kernel) -> Container:
        info, now = kernel.info.memory, kernel.memory
        if info is not None:
            info = msgspec.structs.replace(
                info, in_force=MemoryLimit(now.limit), managed=now.managed, needed_bytes=now.used
            )
        return msgspec.structs.replace(
            kernel.info, in_force=kernel.in_force(), managed=kernel.managed, memory=info
        )

    # ---- time ----------------------------------------------------------------------

    def deliver_order(self, name: str) -> bool:
        """The next order of this host reaches its kernel; false when none is under way."""
        host = self.hosts[name]
        if not host.orders:
            return False
        order = host.orders.popleft()
        if (kernel := host.kernels.get(order.key)) is not None:
            self._obey(host, kernel, order)
            self.check()
        return True

    def _obey(self, host: Host, kernel: Kernel, order: LimitOrder) -> None:
        memory = kernel.memory
        match order:
            case SetLimit():
                kernel.ceiling = order.cpu_milli + order.headroom_milli if order.headroom_milli else 0
                kernel.writes += kernel.limit != order.cpu_milli
                kernel.limit, kernel.managed = order.cpu_milli, True
                self._hold(host, kernel, order.rev)
            case SetMemoryLimit():
                memory.order(order)
                self._sized(host, kernel, order.rev)
                if memory.paused and memory.managed and host.connected:
                    memory.serial += 1
                    self.ask(order.host, kernel)
            case DenyNeed():
                if memory.paused and order.serial == memory.serial:
                    memory.kill()
                    self.handle(MemoryArrived(order.host, [level(kernel)]))
                    self.handle(TasksKilled(order.host, OomKilled(order.key, 1, "its own limit")))
            case ReleaseContainer():
                quota = kernel.info.original.quota_usec
                kernel.limit = None if quota is None else quota * 1000 // PERIOD_USEC
                kernel.managed, kernel.ceiling = False, 0
                kernel.writes += 1
                self._hold(host, kernel, order.rev)
                if kernel.info.memory is not None:
                    original = kernel.info.memory.original.max_bytes
                    memory.limit = None if original is None else max(original, memory.used)
                    memory.managed = False
                    self._sized(host, kernel, order.rev)

    def _hold(self, host: Host, kernel: Kernel, rev: int) -> None:
        kernel.rev = rev
        host.acks.append(Ack(kernel.info.key, rev, kernel.in_force()))

    def _sized(self, host: Host, kernel: Kernel, rev: int) -> None:
        in_force = MemoryLimit(kernel.memory.limit)
        host.acks.append(MemoryAck(kernel.info.key, rev, in_force, kernel.memory.used))

    def deliver_ack(self, name: str) -> bool:
        host = self.hosts[name]
        if not host.acks:
            return False
        ack = host.acks.popleft()
        self.handle(LimitsApplied(name, [ack]) if isinstance(ack, Ack) else MemoryApplied(name, [ack]))
        return True

    def grow(self, host: str, kernel: Kernel, want: int, growth: int = 0) -> None:
        """Its tasks want this many bytes; if that is too much, their agent asks at once."""
        memory = kernel.memory
        memory.want = want
        memory.run()
        if memory.paused and memory.managed and self.hosts[host].connected:
            memory.serial += 1
            self.ask(host, kernel, growth)

    def alarm(self, host: str, kernel: Kernel, *, in_order: bool = True) -> None:
        """Its agent says between two ticks that its quota will not do, after it took what it may.

        ``in_order``: after what it said before, as on one connection.
        """
        sample = msgspec.structs.replace(self._sample(kernel), dry=True)
        if kernel.managed and kernel.ceiling > kernel.held:
            kernel.limit, kernel.ceiling, kernel.writes = kernel.ceiling, 0, kernel.writes + 1
            self._hold(self.hosts[host], kernel, kernel.rev + 1)
        while in_order and self.deliver_ack(host):
            pass
        self.handle(SamplesArrived(host, [sample]))

    def ask(self, host: str, kernel: Kernel, growth: int = 0) -> None:
        memory = kernel.memory
        seen = round(self.now * 1e6)
        held, used = memory.held, memory.used
        need = MemoryNeed(kernel.info.key, memory.serial, held, used, growth, memory.paused, seen)
        self.handle(MemoryNeeded(host, need))

    def draw(self, host: str, kernel: Kernel, want: int, growth: int = 0, rev: int | None = None) -> None:
        """Its tasks want this many bytes, and its agent meets that out of the headroom it has."""
        memory, seen = kernel.memory, round(self.now * 1e6)
        assert memory.ceiling > memory.held, "there is none"
        memory.serial += 1
        need = MemoryNeed(kernel.info.key, memory.serial, memory.held, memory.used, growth, True, seen)
        memory.limit, memory.ceiling, memory.want = memory.ceiling, 0, want
        memory.run()
        in_force = MemoryLimit(memory.limit)
        self.handle(MemoryDrew(host, MemoryDrawn(need, memory.rev if rev is None else rev, in_force, 500)))

    def settle(self) -> None:
        """Everything under way arrives, until nothing is."""
        for _ in range(1000):
            moved = [self.deliver_order(n) | self.deliver_ack(n) for n in list(self.hosts)]
            if not any([self.write(), *moved]):
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
                self.handle(MemoryArrived(name, [level(k) for k in host.kernels.values() if k.info.memory]))
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
        """The sum of the limits that Escra put into the kernels of all hosts that have ever said hello.

        With what their agents may take yet.
        """
        return sum(
            max(kernel.limit or 0, kernel.ceiling)
            for name, host in self.hosts.items()
            for kernel in host.kernels.values()
            if name in self.engine.hosts and kernel.managed and kernel.info.app == app
        )

    def held_bytes(self, app: str = "shop") -> int:
        """The same for memory."""
        return sum(
            kernel.memory.limit or 0
            for name, host in self.hosts.items()
            for kernel in host.kernels.values()
            if name in self.engine.hosts and kernel.memory.managed and kernel.info.app == app
        )

    def check(self) -> None:
        self.engine.check()
        if self.disk is not None:
            self._check_altogether()
        for name, app in self.engine.apps.items():
            for kind, counted, held in (
                ("millicores", app.ledger.counted, self.held(name)),
                ("bytes", app.memory.counted, self.held_bytes(name)),
            ):
                assert held <= counted, f"the kernels hold {held} {kind}, the ledger counts {counted}"
        for host in self.hosts.values():
            for kernel in host.kernels.values():
                memory = kernel.memory
                assert memory.limit is None or memory.used <= memory.limit, "a limit was cut below use"

    def altogether(self, app: str) -> Bound:
        """What all kernels hold by our orders, whoever knows of them at present."""
        kernels = [k for host in self.hosts.values() for k in host.kernels.values() if k.info.app == app]
        return Bound(
            sum(k.limit or 0 for k in kernels if k.managed),
            sum(k.memory.limit or 0 for k in kernels if k.memory.managed),
        )

    def _check_altogether(self) -> None:
        """Never above Ω; after Ω was lowered, never above what it was until all of that is worked off."""
        for name, app in self.engine.apps.items():
            held = self.altogether(name)
            most = self._most[name] = app.omega.most(self._most.get(name, NOTHING))
            assert most.covers(held), f"{name}: the kernels hold {held} of {app.omega}"
            if all(host.connected and not host.orders for host in self.hosts.values()) and not self.writing:
                self._most[name] = app.omega.most(held)

    def rules(self, kernel: Kernel) -> list[str]:
        return [d.rule for d in self.decisions if d.key == kernel.info.key]
