"""The one door: every event goes through ``Engine.handle``, and nothing else changes state.

The engine only decides.  It has no clock, no socket and no log: time is an argument, and
what should happen comes back as instructions.  So it runs the same live, in replay, and
against simulated hosts.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

import msgspec

from escra_common.messages import Ack, Container
from escra_controller.allocator import Allocator, Round
from escra_controller.events import (
    AgentJoined,
    AgentLeft,
    AgentReported,
    AppResized,
    AppsConfigured,
    AppSpec,
    ContainerAppeared,
    ContainerGone,
    Event,
    Instruction,
    LimitsApplied,
    MemoryArrived,
    ReleaseContainer,
    SamplesArrived,
    Ticked,
)
from escra_controller.ledger import Ledger
from escra_controller.policy import POLICIES, Settings
from escra_controller.state import (
    App,
    Host,
    Member,
    MemberKey,
    Refused,
    State,
    charge_millicores,
    classify,
    limit_millicores,
)


class Engine:
    """``now`` is one monotonic clock in seconds for all calls.

    For ``grace_s`` after the start nothing grows and nobody is admitted: hosts that still hold
    limits from before must have a chance to say so first.
    """

    def __init__(self, settings: Settings | None = None, now: float = 0.0, grace_s: float = 0.0) -> None:
        self.settings = settings or Settings()
        self.apps: dict[str, App] = {}
        self.hosts: dict[str, Host] = {}
        self.members: dict[MemberKey, Member] = {}
        self._allocator = Allocator(self.settings, grace_until=now + grace_s)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take one event; raises Refused when it cannot be followed, with the state unchanged."""
        out: list[Instruction] = []
        match event:
            case SamplesArrived():
                self._samples(event, now, out)
            case LimitsApplied(host, acks):
                self._heard(host, now)
                for ack in acks:
                    self._applied(MemberKey(host, ack.key), ack, now, out)
            case Ticked():
                for app in self.apps.values():
                    self._allocator.tick(self._round(app, now, out))
            case AgentJoined():
                self._joined(event, now, out)
            case AgentLeft():
                self._left(event)
            case ContainerAppeared(host, container) if host in self.hosts:
                self._heard(host, now)
                self._upsert(host, container, now, out)
                self._settle_all(now, out)
            case ContainerGone(host, key):
                self._heard(host, now)
                self._forget(MemberKey(host, key), now, out)
            case MemoryArrived(host, levels):
                self._heard(host, now)
                for level in levels:
                    if member := self.members.get(MemberKey(host, level.key)):
                        member.memory = level
            case AgentReported(host, totals):
                self._heard(host, now)
                if host in self.hosts:
                    self.hosts[host].totals = totals
            case ContainerAppeared():
                pass  # of a host that never said hello
            case AppsConfigured(specs):
                self._configure(specs, now, out)
            case AppResized():
                self._resize(event, now, out)
            case _:
                assert_never(event)
        return out

    def check(self) -> None:
        """The promises that are arithmetic; raises AssertionError."""
        for app in self.apps.values():
            app.ledger.check()
            for key in app.ledger:
                assert key in app.members, f"{key} is counted, but nobody knows it"
            for key, member in app.members.items():
                assert member.state not in ("managed", "releasing") or key in app.ledger
                assert self.members[key] is member

    # ---- hosts and containers ------------------------------------------------------

    def _heard(self, host: str, now: float) -> None:
        if host in self.hosts:
            self.hosts[host].heard_at = now

    def _round(self, app: App, now: float, out: list[Instruction]) -> Round:
        reachable = [m for m in app.members.values() if self.hosts[m.key.host].connected]
        return Round(app, reachable, now, out)

    def _joined(self, event: AgentJoined, now: float, out: list[Instruction]) -> None:
        host = event.hello.host
        # Not reachable before all of it is known: an order given halfway would rest on old news.
        self.hosts[host] = Host(event.hello, connected=False, heard_at=now)
        listed = {c.key: c for c in event.containers}
        # A snapshot is the whole truth: what it does not list is gone, after a reboot all of it.
        for key in [k for k in self.members if k.host == host and k.key not in listed]:
            self._forget(key, now, out)
        for container in listed.values():
            self._upsert(host, container, now, out, snapshot=True)
        self.hosts[host].connected = True
        self._settle_all(now, out)

    def _left(self, event: AgentLeft) -> None:
        """Its containers keep, and are counted at, what they hold; only their wishes are void."""
        if host := self.hosts.get(event.host):
            host.connected, host.reason = False, event.reason
        for key, member in self.members.items():
            if key.host == event.host:
                self._forget_wish(member)

    def _forget_wish(self, member: Member) -> None:
        if app := self.apps.get(member.info.app):
            app.unmet.pop(member.key, None)

    def _settle_all(self, now: float, out: list[Instruction]) -> None:
        for app in list(self.apps.values()):
            self._allocator.settle(self._round(app, now, out))

    def _upsert(
        self, host: str, info: Container, now: float, out: list[Instruction], *, snapshot: bool = False
    ) -> None:
        key = MemberKey(host, info.key)
        member = self.members.get(key)
        if member is None:
            rule = POLICIES[self.settings.name](self.settings)
            member = self.members[key] = Member(key, info, "new", rule)
        elif member.info.app != info.app:
            self._drop_from_app(member, now, out)
        member.info = info
        member.host_milli = 1000 * self.hosts[host].hello.cpus
        self._place(member, out, snapshot=snapshot)

    def _place(self, member: Member, out: list[Instruction], *, snapshot: bool = False) -> None:
        """Put a container where its labels, its mode and the configured applications say it belongs."""
        state, member.problem = classify(member.info, self._configured())
        app = self.apps.get(member.info.app)
        if app is not None:
            app.members[member.key] = member
        counted = app is not None and member.key in app.ledger
        if state != "new":
            self._release(member, state, counted, out, snapshot=snapshot)
            return
        assert app is not None
        held = charge_millicores(member.info.in_force)
        if member.info.managed and held is not None and (snapshot or not counted):
            # It holds a limit of ours from before: counted as it is, whether or not there is room.
            app.ledger.adopt(member.key, held)
            member.limit = limit_millicores(member.info.in_force)
            member.state, member.last_rev = "managed", 0
        elif snapshot or not counted:
            app.ledger.forget(member.key)
            member.state, member.limit = "new", None

    def _release(
        self,
        member: Member,
        state: State,
        counted: bool,
        out: list[Instruction],
        *,
        snapshot: bool = False,
    ) -> None:
        """Give the original limit back; until the agent says so, the ledger counts what it held."""
        if counted and snapshot and not member.info.managed:
            # The agent gave it back already, while nobody listened.
            self.apps[member.info.app].ledger.forget(member.key)
            counted, member.limit = False, None
        if not (counted or member.limit is not None or member.info.managed):
            member.state = state
        elif member.state != "releasing" or snapshot:
            self._forget_wish(member)
            member.state = "releasing" if counted else state
            member.limit = None
            member.info = msgspec.structs.replace(member.info, managed=False)
            member.last_rev = self._allocator.next_rev()
            # A host that is away hears it when it is back: its snapshot says that it still holds.
            out.append(ReleaseContainer(*member.key, member.last_rev))

    def _forget(self, key: MemberKey, now: float, out: list[Instruction]) -> None:
        if member := self.members.pop(key, None):
            self._drop_from_app(member, now, out)

    def _drop_from_app(self, member: Member, now: float, out: list[Instruction]) -> None:
        app = self.apps.get(member.info.app)
        if app is not None and member.key in app.members:
            del app.members[member.key]
            app.unmet.pop(member.key, None)
            app.ledger.forget(member.key)
            self._allocator.settle(self._round(app, now, out))
            self._bury(app)

    # ---- samples and acknowledgements ----------------------------------------------

    def _samples(self, event: SamplesArrived, now: float, out: list[Instruction]) -> None:
        self._heard(event.host, now)
        touched: dict[str, dict[MemberKey, Member]] = {}
        for sample in event.samples:
            member = self.members.get(MemberKey(event.host, sample.key))
            # A sample of a container that is gone already is late, not wrong.
            if member and member.demand.observe(sample, now, member.raised_by):
                touched.setdefault(member.info.app, {})[member.key] = member
        for name, members in touched.items():
            if app := self.apps.get(name):
                self._allocator.sampled(self._round(app, now, out), members.values())

    def _applied(self, key: MemberKey, ack: Ack, now: float, out: list[Instruction]) -> None:
        member = self.members.get(key)
        app = self.apps.get(member.info.app) if member else None
        if member is None or app is None or key not in app.ledger:
            return
        if member.state == "releasing":
            if ack.rev == member.last_rev:
                app.ledger.forget(key)
                member.info = msgspec.structs.replace(member.info, in_force=ack.in_force)
                self._place(member, out)
                self._allocator.settle(self._round(app, now, out))
                self._bury(app)
            return
        self._allocator.acknowledged(self._round(app, now, out), member, ack)

    # ---- applications --------------------------------------------------------------

    def _configure(self, specs: Iterable[AppSpec], now: float, out: list[Instruction]) -> None:
        wanted = {spec.name: spec for spec in specs}
        for name, spec in wanted.items():
            if name in self.apps:
                self.apps[name].refuse_below_floors(spec.cpu)
        for name in self._configured() - wanted.keys():
            self._remove(self.apps[name], out)
        for name, spec in wanted.items():
            if name not in self.apps:
                self.apps[name] = App(spec, Ledger(spec.cpu))
            self.apps[name].removed = False
            self._apply_spec(self.apps[name], spec, now, out)
        for member in list(self.members.values()):
            if member.state == "unknown-app" and member.info.app in wanted:
                self._place(member, out)
        self._settle_all(now, out)

    def _remove(self, app: App, out: list[Instruction]) -> None:
        """Release everybody; what they hold stays counted until their agents say that it is done."""
        app.removed = True
        for member in app.members.values():
            state, member.problem = classify(member.info, self._configured())
            self._release(member, state, member.key in app.ledger, out)
        self._bury(app)

    def _bury(self, app: App) -> None:
        if app.removed and not any(True for _ in app.ledger):
            self.apps.pop(app.spec.name, None)

    def _configured(self) -> set[str]:
        return {name for name, app in self.apps.items() if not app.removed}

    def _resize(self, event: AppResized, now: float, out: list[Instruction]) -> None:
        app = self.apps.get(event.app)
        if app is None or app.removed:
            known = ", ".join(sorted(self._configured())) or "none"
            raise Refused(f"there is no application {event.app!r}; there are: {known}")
        cpu = app.spec.cpu if event.cpu is None else event.cpu
        memory = app.spec.memory if event.memory is None else event.memory
        app.refuse_below_floors(cpu)
        self._apply_spec(app, replace(app.spec, cpu=cpu, memory=memory), now, out)

    def _apply_spec(self, app: App, spec: AppSpec, now: float, out: list[Instruction]) -> None:
        app.spec = spec
        if app.ledger.omega != spec.cpu:
            app.ledger.resize(spec.cpu)
        self._allocator.settle(self._round(app, now, out))
