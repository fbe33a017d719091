"""The one door: every event goes through ``Engine.handle``, and nothing else changes state.

The engine only decides.  It has no clock, no socket and no log: time is an argument, and
what should happen comes back as instructions.  So it runs the same live, in replay, and
against simulated hosts.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from escra_common.messages import Ack, MemoryAck
from escra_controller.absence import Absence
from escra_controller.bounds import ALL_HOSTS, Bound
from escra_controller.events import (
    AgentJoined,
    AgentLeft,
    AgentReported,
    AppResized,
    AppsConfigured,
    AppSpec,
    ContainerAppeared,
    ContainerGone,
    Decision,
    Event,
    HostForgotten,
    Instruction,
    LimitsApplied,
    MemoryApplied,
    MemoryArrived,
    MemoryDrew,
    MemoryNeeded,
    SamplesArrived,
    Secured,
    TasksKilled,
    Ticked,
)
from escra_controller.membership import Membership
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings
from escra_controller.pools import Pools
from escra_controller.registry import BoundRows, Registry
from escra_controller.rounds import Round
from escra_controller.state import App, Member, MemberKey, Refused, classify

DECISIONS_KEPT = 2000


class Engine:
    """``now`` is one monotonic clock in seconds for all calls.

    For ``grace_s`` after the start nothing grows and nobody is admitted: hosts that still hold
    limits from before must have a chance to say so first.

    ``bounds`` are those on disk by (host, application): with them, absent hosts are counted at what they may
    hold, and each Secure is to be answered by a Secured.  Without, nothing is remembered over a restart.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        now: float = 0.0,
        grace_s: float = 0.0,
        memory: MemorySettings | None = None,
        bounds: BoundRows | None = None,
    ) -> None:
        self.settings = settings or Settings()
        registry = Registry.knowing(bounds)
        self.apps, self.hosts, self.members = registry.apps, registry.hosts, registry.members
        self._registry = registry
        # Numbered from 1; the latest of all applications.
        self.decisions: deque[tuple[int, Decision]] = deque(maxlen=DECISIONS_KEPT)
        self._decided = 0
        self._pools = Pools(self.settings, memory or MemorySettings(), now + grace_s, self.hosts)
        self._membership = Membership(registry, self.settings, self._pools)
        self._absence = Absence(registry, self._membership, self._pools)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take one event; raises Refused when it cannot be followed, with the state unchanged."""
        out: list[Instruction] = []
        match event:
            case AppsConfigured(specs):
                self._configure(specs, now, out)
            case AppResized():
                self._resize(event, now, out)
            case HostForgotten(host):
                self._absence.forget(host, now, out)
            case Secured(app, host, bound):
                self._secured(app, host, bound, now, out)
            case Ticked():
                self._absence.tick(now, out)
                self._pools.tick(list(self.apps.values()), now, out)
            case AgentJoined(hello, containers):
                it_was = self._absence.expect(hello, out)
                concerned = self._apps_on(hello.host)
                self._membership.joined(hello, containers, now, out)
                self._absence.tell(hello.host, out)
                self._absence.back(hello.host, it_was, now, out)
                self._settle(concerned | self._apps_on(hello.host), now, out)
            case AgentLeft(host, reason):
                self._membership.left(host, reason)
            case _ if event.host in self.hosts:  # what others say who never said hello is void
                self.hosts[event.host].heard_at = now
                self._heard(event, now, out)
        for instruction in out:
            if isinstance(instruction, Decision):
                self._number(instruction)
        return out

    def note(self, observed: Decision) -> None:
        """Keep what would have been decided about a container among the decisions about it."""
        self._number(observed)
        if member := self.members.get(MemberKey(observed.host, observed.key)):
            member.keep(observed)

    def _number(self, decision: Decision) -> None:
        self._decided += 1
        self.decisions.append((self._decided, decision))

    def check(self) -> None:
        """The promises that are arithmetic; raises AssertionError."""
        for app in self.apps.values():
            app.check()
            assert all(self.members[key] is member for key, member in app.members.items())
        found = [member for on_host in self._registry.by_host.values() for member in on_host.values()]
        assert {m.key: m for m in found} == self.members, "the hosts' containers are others"

    # ---- what agents say -----------------------------------------------------------

    def _heard(
        self,
        event: ContainerAppeared
        | ContainerGone
        | SamplesArrived
        | MemoryArrived
        | MemoryNeeded
        | MemoryDrew
        | TasksKilled
        | LimitsApplied
        | MemoryApplied
        | AgentReported,
        now: float,
        out: list[Instruction],
    ) -> None:
        match event:
            case SamplesArrived():
                self._samples(event, now, out)
            case LimitsApplied(host, acks):
                self._applied(host, acks, now, out)
            case MemoryArrived(host, levels):
                for level in levels:
                    for r, member in self._member(host, level.key, now, out):
                        self._pools.memory.measured(r, member, level)
            case MemoryNeeded(host, need):
                for r, member in self._member(host, need.key, now, out):
                    self._pools.memory.needed(r, member, need)
            case MemoryDrew(host, drawn):
                for r, member in self._member(host, drawn.key, now, out):
                    self._pools.memory.headroom.drew(r, member, drawn)
            case MemoryApplied(host, memory_acks):
                self._memory_applied(host, memory_acks, now, out)
            case TasksKilled(host, killed):
                for r, member in self._member(host, killed.key, now, out):
                    self._pools.memory.killed(r, member, killed)
            case AgentReported(host, totals):
                self.hosts[host].totals = totals
                self._absence.told(self.hosts[host])
            case ContainerAppeared(host, container):
                before = self._registry.on(host).get(container.key)
                concerned = {container.app, before.info.app if before else container.app}
                self._membership.upsert(host, container, now, out)
                self._settle(concerned, now, out)
            case ContainerGone(host, key):
                self._membership.forget(MemberKey(host, key), now, out)
            case _:
                assert_never(event)

    def _member(
        self, host: str, key: int, now: float, out: list[Instruction]
    ) -> Iterator[tuple[Round, Member]]:
        """The container and a round of its application; nothing when news of it comes too late."""
        member = self._registry.on(host).get(key)
        app = self.apps.get(member.info.app) if member else None
        if member is not None and app is not None:
            yield self._pools.round(app, now, out), member

    def _samples(self, event: SamplesArrived, now: float, out: list[Instruction]) -> None:
        touched: dict[str, dict[int, Member]] = {}
        members = self._registry.on(event.host)
        for sample in event.samples:
            member = members.get(sample.key)
            # A sample of a container that is gone already is late, not wrong.
            if member and member.demand.observe(sample, now, member.raised_by):
                touched.setdefault(member.info.app, {})[sample.key] = member
        for name, sampled in touched.items():
            if app := self.apps.get(name):
                self._pools.cpu.sampled(self._pools.round(app, now, out), sampled.values())

    def _applied(self, host: str, acks: Iterable[Ack], now: float, out: list[Instruction]) -> None:
        """Once for all that were read back together: what may have become free is dealt out."""
        rounds: dict[str, Round] = {}
        for ack in acks:
            self._obeyed(host, ack)
            for r, member in self._member(host, ack.key, now, out):
                if member.key not in r.app.ledger:
                    continue
                if member.state == "releasing":
                    self._membership.released(r.app, member, ack, now, out)
                elif self._pools.cpu.acknowledged(r, member, ack):
                    rounds[r.app.spec.name] = r
        for r in rounds.values():
            self._pools.cpu.settle(r)

    def _obeyed(self, host: str, ack: Ack | MemoryAck) -> None:
        if member := self._registry.on(host).get(ack.key):
            self._membership.obeyed(member, ack)

    def _memory_applied(
        self, host: str, acks: Iterable[MemoryAck], now: float, out: list[Instruction]
    ) -> None:
        rounds: dict[str, Round] = {}
        for ack in acks:
            self._obeyed(host, ack)
            for r, member in self._member(host, ack.key, now, out):
                if member.key not in r.app.memory:
                    continue
                if member.memory.releasing:
                    self._membership.memory_released(r.app, member, ack, now, out)
                else:
                    self._pools.memory.acknowledged(r, member, ack)
                    rounds[r.app.spec.name] = r
        for r in rounds.values():
            self._pools.memory.settle(r)

    # ---- applications --------------------------------------------------------------

    @property
    def host_count(self) -> int:
        """Of all that may hold something."""
        return self._absence.count

    def absent_hosts(self) -> set[str]:
        """Hosts that were there before a restart, and have not come back."""
        return self._registry.absent()

    def _secured(self, name: str, host: str, bound: Bound, now: float, out: list[Instruction]) -> None:
        app = self.apps.get(name)
        if app is not None and app.bounds is not None:
            app.bounds.secured(host, bound)
            self._pools.settle([app], now, out)

    def _secure_all(self, apps: Iterable[App], now: float, out: list[Instruction]) -> None:
        """The bound of the sum follows Ω."""
        for app in apps:
            self._pools.round(app, now, out).secure(ALL_HOSTS)

    def _apps_on(self, host: str) -> set[str]:
        return {member.info.app for member in self._registry.on(host).values()}

    def _settle(self, names: Iterable[str], now: float, out: list[Instruction]) -> None:
        """The others have their turn at the next tick: many hosts may join at the same moment."""
        self._pools.settle([self.apps[name] for name in sorted(names) if name in self.apps], now, out)

    def _settle_all(self, now: float, out: list[Instruction]) -> None:
        self._pools.settle(list(self.apps.values()), now, out)

    def _configure(self, specs: Iterable[AppSpec], now: float, out: list[Instruction]) -> None:
        wanted = {spec.name: spec for spec in specs}
        for name, spec in wanted.items():
            if name in self.apps:
                self.apps[name].refuse_below_floors(spec)
        for name in self._registry.configured() - wanted.keys():
            self._remove(self.apps[name], out)
        for name, spec in wanted.items():
            if name not in self.apps:
                self._registry.make_app(spec)
            self.apps[name].removed = False
            app = self.apps[name]
            changed = app.spec.mode != spec.mode
            self._apply_spec(app, spec)
            for member in list(app.members.values()) if changed else ():
                self._membership.place(member, out)
        for member in list(self.members.values()):
            if member.state == "unknown-app" and member.info.app in wanted:
                self._membership.place(member, out)
        self._absence.configured(out)
        self._secure_all(self.apps.values(), now, out)
        self._settle_all(now, out)

    def _remove(self, app: App, out: list[Instruction]) -> None:
        """Release everybody; what they hold stays counted until their agents say that it is done."""
        app.removed = True
        for member in app.members.values():
            state, member.problem = classify(member.info, self._registry)
            self._membership.release(member, state, out)
        self._membership.bury(app, out)

    def _resize(self, event: AppResized, now: float, out: list[Instruction]) -> None:
        app = self.apps.get(event.app)
        if app is None or app.removed:
            known = ", ".join(sorted(self._registry.configured())) or "none"
            raise Refused(f"there is no application {event.app!r}; there are: {known}")
        spec = replace(
            app.spec,
            cpu=app.spec.cpu if event.cpu is None else event.cpu,
            memory=app.spec.memory if event.memory is None else event.memory,
        )
        app.refuse_below_floors(spec)
        self._apply_spec(app, spec)
        self._secure_all([app], now, out)
        self._pools.settle([app], now, out)

    def _apply_spec(self, app: App, spec: AppSpec) -> None:
        app.spec = spec
        app.changed()
        app.reserve()
        if app.ledger.omega != spec.cpu:
            app.ledger.resize(spec.cpu)
        if app.memory.omega != spec.memory:
            app.memory.resize(spec.memory)
