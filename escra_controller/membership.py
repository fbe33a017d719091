"""Which containers there are, which application each belongs to, and what it takes with it when it leaves."""

from collections.abc import Sequence

import msgspec

from escra_common.messages import Ack, Container, Hello, MemoryAck
from escra_controller.bounds import ALL_APPS, ALL_HOSTS, NOTHING
from escra_controller.contention import NEED_WINDOW_S
from escra_controller.demand import Demand
from escra_controller.events import Instruction, ReleaseContainer, Secure
from escra_controller.policy import POLICIES, Settings
from escra_controller.pools import Pools
from escra_controller.registry import Registry
from escra_controller.state import (
    App,
    Host,
    Member,
    MemberKey,
    State,
    charge_millicores,
    classify,
    limit_millicores,
)

# What adds up the history looks at a container every half a second (history.py).
HISTORY_S = 1.0


class Membership:
    def __init__(self, registry: Registry, settings: Settings, pools: Pools) -> None:
        self._all = registry
        self._settings = settings
        self._pools = pools

    # ---- hosts ---------------------------------------------------------------------

    def joined(
        self, hello: Hello, containers: Sequence[Container], now: float, out: list[Instruction]
    ) -> None:
        host = hello.host
        strange = hello.unmet and not self._known(host)
        # Not reachable before all of it is known: an order given halfway would rest on old news.
        self._all.hosts[host] = Host(hello, connected=False, heard_at=now, strange=strange, unmet=hello.unmet)
        listed = {c.key: c for c in containers}
        # A snapshot is the whole truth: what it does not list is gone, after a reboot all of it.
        for key in [m.key for m in self._all.on(host).values() if m.key.key not in listed]:
            self.forget(key, now, out)
        for container in listed.values():
            self.upsert(host, container, now, out, snapshot=True)
        self._all.hosts[host].connected = True

    def _known(self, name: str) -> bool:
        """Whether it may have had limits of ours before."""
        if (host := self._all.hosts.get(name)) is not None:
            return not host.strange
        return any(kept == name and app != ALL_APPS for kept, app in self._all.kept or ())

    def left(self, name: str, reason: str) -> None:
        """Its containers keep, and are counted at, what they hold; only their wishes are void."""
        if host := self._all.hosts.get(name):
            host.connected, host.reason = False, reason
        for member in self._all.on(name).values():
            self._forget_wishes(member)
            if member.unreleased is not None:
                member.info, member.unreleased = member.unreleased, None

    # ---- containers ----------------------------------------------------------------

    def upsert(
        self, host: str, info: Container, now: float, out: list[Instruction], *, snapshot: bool = False
    ) -> None:
        key = MemberKey(host, info.key)
        member = self._all.members.get(key)
        if member is None:
            rule = POLICIES[self._settings.name](self._settings)
            member = Member(key, info, "new", rule, self._demand())
            self._all.add(member)
        elif member.info.app != info.app:
            self._move(member, info, now, out, snapshot=snapshot)
        member.info, member.unreleased = info, None
        hello = self._all.hosts[host].hello
        member.host_milli, member.host_bytes = 1000 * hello.cpus, hello.memory_bytes
        self.place(member, out, snapshot=snapshot)

    def _move(
        self, member: Member, info: Container, now: float, out: list[Instruction], *, snapshot: bool
    ) -> None:
        """To another application.  On the same connection, what was ordered may yet be written."""
        key, old, new = member.key, self._all.apps.get(member.info.app), self._all.apps.get(info.app)
        entries = (old.ledger.get(key), old.memory.get(key)) if old is not None else (None, None)
        self._drop_from_app(member, now, out)
        if new is None or snapshot:
            return
        cpu, memory = entries
        if cpu is not None:
            new.ledger.take_over(key, cpu)
        if memory is not None and info.memory is not None:
            new.memory.take_over(key, memory)

    def _demand(self) -> Demand:
        """As much of it as anybody looks back; the rules of others look back far."""
        settings = self._settings
        if settings.name != "escra":
            return Demand()
        back_s = max(settings.shrink_window_s, NEED_WINDOW_S, HISTORY_S)
        return Demand(back_s, max(settings.window, 3), alarms=True)

    def place(self, member: Member, out: list[Instruction], *, snapshot: bool = False) -> None:
        """Put a container where its labels, its mode and the configured applications say it belongs."""
        app = self._all.apps.get(member.info.app)
        observed = [app.spec.name] if app is not None and app.spec.mode == "observe" else []
        state, member.problem = classify(member.info, self._all, observed)
        if app is not None:
            app.members[member.key] = member
        if state != "new":
            self.release(member, state, out, snapshot=snapshot)
        else:
            assert app is not None
            self._place_cpu(app, member, snapshot=snapshot)
        if app is not None and member.memory_wanted:
            _place_memory(app, member, snapshot=snapshot)
        elif app is not None and member.key not in app.memory:
            # It came from another application, and has no memory to manage any more.
            member.memory.limit = member.memory.ordered = None
        if app is not None:
            app.changed(member)

    def release(
        self, member: Member, state: State, out: list[Instruction], *, snapshot: bool = False
    ) -> None:
        """Give the original limits back; until the agent says so, the ledgers count what it held.

        One that is ``pinned`` from now on leaves only the CPU pool, but all of it is given back first.
        """
        app, memory = self._all.apps.get(member.info.app), member.memory
        if app is not None:
            app.changed(member)
            if snapshot:
                _forget_given_back(app, member)
            _count_unknown(app, member)
        counted = app is not None and member.key in app.ledger
        holds_cpu = counted or member.limit is not None or member.info.managed
        holds_memory = memory.limit is not None or _manages_memory(member.info)
        under_way = memory.releasing and not snapshot
        if not holds_cpu and (state == "pinned" or under_way or not holds_memory):
            member.state = state
        elif member.state != "releasing" or snapshot:
            self._forget_wishes(member)
            member.state = "releasing" if counted else state
            member.limit = memory.limit = None
            memory.releasing = app is not None and member.key in app.memory
            member.unreleased = member.info if app is None else None
            member.info = msgspec.structs.replace(_unmanaged_memory(member.info), managed=False)
            member.last_rev = memory.last_rev = self._pools.next_rev()
            # A host that is away hears it when it is back: its snapshot says that it still holds.
            out.append(ReleaseContainer(*member.key, member.last_rev))

    def obeyed(self, member: Member, ack: Ack | MemoryAck) -> None:
        """Its agent did what it was told last: also of a release of what is in no application."""
        if (before := member.unreleased) is None or ack.rev != member.last_rev:
            return
        if isinstance(ack, Ack):
            member.unreleased = msgspec.structs.replace(before, in_force=ack.in_force, managed=False)
        else:
            member.unreleased = _unmanaged_memory(before)

    def released(self, app: App, member: Member, ack: Ack, now: float, out: list[Instruction]) -> None:
        """Its original CPU limit is back, by its agent's word."""
        if ack.rev == member.last_rev:
            app.ledger.forget(member.key)
            member.info = msgspec.structs.replace(member.info, in_force=ack.in_force, managed=False)
            self.place(member, out)
            self._pools.settle([app], now, out)
            self.bury(app, out)

    def memory_released(
        self, app: App, member: Member, ack: MemoryAck, now: float, out: list[Instruction]
    ) -> None:
        """The same for memory; what could not be given back is not ours to count any more, but said."""
        if ack.rev == member.memory.last_rev:
            app.memory.forget(member.key)
            member.memory.releasing, member.memory.problem = False, ack.error
            member.info = _unmanaged_memory(member.info)
            app.look_at(member)
            self._pools.settle([app], now, out)
            self.bury(app, out)

    def forget(self, key: MemberKey, now: float, out: list[Instruction]) -> None:
        """It does not exist any more."""
        if member := self._all.pop(key):
            self._drop_from_app(member, now, out)

    def bury(self, app: App, out: list[Instruction]) -> None:
        """An application that is not configured any more ends with the last limit it is counted for."""
        if not app.removed or any(True for ledger in (app.ledger, app.memory) for _ in ledger):
            return
        self._all.apps.pop(app.spec.name, None)
        kept = [ALL_HOSTS, *app.bounds.hosts()] if app.bounds else []
        out.extend(Secure(app.spec.name, host, NOTHING) for host in kept if not app.absent.awaits(host))

    def _place_cpu(self, app: App, member: Member, *, snapshot: bool) -> None:
        counted = member.key in app.ledger
        held = charge_millicores(member.info.in_force)
        # An agent that was killed takes one whose limit is the original for one that was never managed.
        unchanged = counted and member.limit is not None and held == app.ledger[member.key].counted
        if (member.info.managed or unchanged) and held is not None and (snapshot or not counted):
            # It holds a limit of ours from before: counted as it is, whether or not there is room.
            app.ledger.adopt(member.key, held)
            member.limit = limit_millicores(member.info.in_force)
            member.state, member.last_rev, member.headroom_rev = "managed", 0, 0
        elif snapshot or not counted:
            app.ledger.forget(member.key)
            member.state, member.limit = "new", None

    def _drop_from_app(self, member: Member, now: float, out: list[Instruction]) -> None:
        app = self._all.apps.get(member.info.app)
        if app is not None and member.key in app.members:
            app.forget(member.key)
            self._pools.settle([app], now, out)
            self.bury(app, out)

    def _forget_wishes(self, member: Member) -> None:
        member.memory.leave()
        if app := self._all.apps.get(member.info.app):
            app.unmet.pop(member.key, None)


def _place_memory(app: App, member: Member, *, snapshot: bool) -> None:
    info, memory = member.info.memory, member.memory
    assert info is not None
    counted, held = member.key in app.memory, info.in_force.max_bytes
    unchanged = counted and memory.limit is not None and held == app.memory[member.key].counted
    if (info.managed or unchanged) and held is not None and (snapshot or not counted):
        app.memory.adopt(member.key, held)
        memory.limit, memory.needed, memory.ordered = held, info.needed_bytes, None
        memory.last_rev, memory.releasing = 0, False
    elif snapshot or not counted:
        app.memory.forget(member.key)
        memory.limit, memory.ordered, memory.releasing = None, None, False


def _forget_given_back(app: App, member: Member) -> None:
    """What the agent gave back already, while nobody listened."""
    if not member.info.managed:
        app.ledger.forget(member.key)
        member.limit = None
    if not _manages_memory(member.info):
        app.memory.forget(member.key)
        member.memory.limit, member.memory.releasing = None, False


def _count_unknown(app: App, member: Member) -> None:
    """A limit of ours that is not counted yet: from before a restart, and not wanted any more."""
    held = charge_millicores(member.info.in_force)
    if member.info.managed and held is not None and member.key not in app.ledger:
        app.ledger.adopt(member.key, held)
    memory = member.info.memory
    if memory is not None and memory.managed and memory.in_force.max_bytes and member.key not in app.memory:
        app.memory.adopt(member.key, memory.in_force.max_bytes)


def _manages_memory(info: Container) -> bool:
    return info.memory is not None and info.memory.managed


def _unmanaged_memory(info: Container) -> Container:
    memory = info.memory and msgspec.structs.replace(info.memory, managed=False)
    return msgspec.structs.replace(info, memory=memory)
