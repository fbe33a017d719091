"""The production engine over imagined kernels: what it would decide where it touches nothing. Pure.

Every order is in force and acknowledged at once, as by a kernel; what was measured in reality is told to the
engine as it would have been under the limits that it gave (``imagined``).  So nothing is known of delays on
the way, nor of work that was held back in reality.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from escra_common.messages import Container, MemoryDrawn, OomKilled
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AgentLeft,
    AppResized,
    AppsConfigured,
    ContainerAppeared,
    ContainerGone,
    Decision,
    DenyNeed,
    Event,
    HostForgotten,
    Instruction,
    LimitsApplied,
    MemoryApplied,
    MemoryArrived,
    MemoryDrew,
    MemoryNeeded,
    ReleaseContainer,
    SamplesArrived,
    SetLimit,
    SetMemoryLimit,
    TasksKilled,
    Ticked,
)
from escra_controller.imagined import Imagined
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings
from escra_controller.state import MemberKey
from escra_controller.would import Would

# A container may be granted memory so often for what one measurement says.
MOST_GRANTS = 8
# What the engine asks for after one event ends long before; if not, the rest waits for the next.
MOST_ROUNDS = 10_000


class WhatIf:
    """``handle`` takes what an engine is told about containers, and gives what it would decide of them.

    All of them are managed, except those whose mode is off.  ``containers`` are as imagined.
    """

    def __init__(self, settings: Settings, memory: MemorySettings, now: float) -> None:
        self.engine = Engine(settings, now, 0.0, memory)
        self.containers: dict[MemberKey, Imagined] = {}
        self._told: deque[Event] = deque()

    def would(self, key: MemberKey) -> Would | None:
        """None for a container that is not here."""
        member, imagined = self.engine.members.get(key), self.containers.get(key)
        if member is None or imagined is None:
            return None
        return Would(member.limit, member.memory.limit, imagined.cpu.throttled)

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Raises Refused as the engine does, with the state unchanged."""
        out: list[Decision] = []
        match event:
            case AgentJoined(hello, containers):
                listed = {container.key for container in containers}
                for key in [k for k in self.containers if k.host == hello.host and k.key not in listed]:
                    del self.containers[key]
                described = [self._put(hello.host, container) for container in containers]
                self._tell(AgentJoined(hello, described), now, out)
            case ContainerAppeared(host, container):
                self._tell(ContainerAppeared(host, self._put(host, container)), now, out)
            case ContainerGone(host, key):
                if self.containers.pop(MemberKey(host, key), None):
                    self._tell(event, now, out)
            case SamplesArrived(host, samples):
                seen = [c.cpu.sample(s) for s in samples for c in self._known(host, s.key)]
                self._tell(SamplesArrived(host, seen), now, out)
            case MemoryArrived(host, levels):
                measured = [
                    c.memory.measure(level, now) for level in levels for c in self._known(host, level.key)
                ]
                self._tell(MemoryArrived(host, measured), now, out)
                for level in levels:
                    self._ask(MemberKey(host, level.key), now, out)
            case MemoryNeeded(host, need) | MemoryDrew(host, MemoryDrawn(need)):
                for imagined in self._known(host, need.key):
                    imagined.memory.waited(need)
                    self._ask(MemberKey(host, need.key), now, out)
            case LimitsApplied(host, acks):
                for ack in acks:
                    for imagined in self._known(host, ack.key):
                        imagined.cpu.real = ack.in_force
            case MemoryApplied(host, memory_acks):
                for memory_ack in memory_acks:
                    for imagined in self._known(host, memory_ack.key):
                        imagined.memory.real = memory_ack.in_force.max_bytes
            case Ticked():
                self._tell(event, now, out)
                for key in [k for k, c in self.containers.items() if c.memory.beyond]:
                    self._ask(key, now, out)
            case HostForgotten(host):
                for key in [k for k in self.containers if k.host == host]:
                    del self.containers[key]
                if host in self.engine.hosts:
                    self._tell(event, now, out)
            case AgentLeft() | AppsConfigured() | AppResized():
                self._tell(event, now, out)
            case _:
                pass  # what really happened to real tasks, and what a disk holds
        return out

    def _known(self, host: str, key: int) -> Iterator[Imagined]:
        if (imagined := self.containers.get(MemberKey(host, key))) is not None:
            yield imagined

    def _put(self, host: str, container: Container) -> Container:
        imagined = self.containers.setdefault(MemberKey(host, container.key), Imagined(container))
        imagined.info = container
        imagined.cpu.real = container.in_force
        if container.memory is not None:
            imagined.memory.real = container.memory.in_force.max_bytes
        return imagined.describe()

    def _ask(self, key: MemberKey, now: float, out: list[Decision]) -> None:
        """What one measurement shows may be too much for several limits, one after the other."""
        for _ in range(MOST_GRANTS):
            imagined = self.containers.get(key)
            need = imagined.memory.need(key.key, now) if imagined else None
            if need is None or key not in self.engine.members:
                return
            self._tell(MemoryNeeded(key.host, need), now, out)

    # ---- the kernels ---------------------------------------------------------------

    def _tell(self, event: Event, now: float, out: list[Decision]) -> None:
        """Let the engine hear it, and the kernels obey, until nothing is under way."""
        self._told.append(event)
        for _ in range(MOST_ROUNDS):
            if not self._told:
                return
            for instruction in self.engine.handle(self._told.popleft(), now):
                if isinstance(instruction, Decision):
                    out.append(_imagined(instruction))
                else:
                    self._told.extend(self._obey(instruction))

    def _obey(self, instruction: Instruction) -> Iterator[Event]:
        if not isinstance(instruction, SetLimit | SetMemoryLimit | DenyNeed | ReleaseContainer):
            return
        host, key = instruction.host, instruction.key
        for imagined in self._known(host, key):
            match instruction:
                case SetLimit():
                    yield LimitsApplied(host, [imagined.set(instruction)])
                case SetMemoryLimit():
                    yield MemoryApplied(host, [imagined.memory.order(instruction)])
                case DenyNeed():
                    if imagined.memory.deny():
                        yield TasksKilled(host, OomKilled(key, 1, "its limit"))
                case ReleaseContainer(_, _, rev):
                    ack, memory_ack = imagined.release(key, rev)
                    yield LimitsApplied(host, [ack])
                    yield MemoryApplied(host, [memory_ack])


def _imagined(decision: Decision) -> Decision:
    cause = decision.cause
    if decision.rule == "oom-kill":
        cause = cause.replace("the kernel killed", "the kernel would have killed", 1)
    return msgspec.structs.replace(decision, cause=cause, observed=True)
