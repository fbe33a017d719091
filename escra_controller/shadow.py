"""What Escra would do with the containers that it only observes.  Pure.

A second engine beside the live one decides about them as if it managed them (``whatif``).  They share their
application's Ω with those that are managed: what these hold is not available to them.
"""

from collections.abc import Iterable
from dataclasses import replace

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
    HostForgotten,
    LimitsApplied,
    MemoryApplied,
    MemoryArrived,
    SamplesArrived,
    Ticked,
)
from escra_controller.memory import MemorySettings
from escra_controller.state import MemberKey, Refused
from escra_controller.whatif import WhatIf
from escra_controller.would import Would


class Shadow:
    """Hears of every event after ``live``, and changes nothing in it but the list of its decisions."""

    def __init__(self, live: Engine, memory: MemorySettings | None = None, now: float = 0.0) -> None:
        self._live = live
        self._whatif = WhatIf(live.settings, memory or MemorySettings(), now)
        self._observed: set[MemberKey] = set()
        # The applications of the observed.
        self._apps: list[str] = []
        self._specs: dict[str, AppSpec] = {}

    def would(self, key: MemberKey) -> Would | None:
        """What an observed container would have; None for one that is not observed."""
        return self._whatif.would(key)

    def check(self) -> None:
        """The promises that are arithmetic, of the limits that nobody writes; raises AssertionError."""
        self._whatif.engine.check()

    def handle(self, event: Event, now: float) -> list[Decision]:
        """What would have been decided about the observed, ``live`` having handled the event already."""
        out = self._handle(event, now)
        for decision in out:
            self._live.note(decision)
        return out

    def _handle(self, event: Event, now: float) -> list[Decision]:
        out: list[Decision] = []
        self._share(now, out)
        match event:
            case SamplesArrived() | MemoryArrived() if not self._observed:
                pass  # as nearly always: they come thousands of times a second
            case SamplesArrived(host, samples):
                mine = [s for s in samples if (host, s.key) in self._observed]
                self._tell(SamplesArrived(host, mine), bool(mine), now, out)
            case MemoryArrived(host, levels):
                of_mine = [level for level in levels if (host, level.key) in self._observed]
                self._tell(MemoryArrived(host, of_mine), bool(of_mine), now, out)
            case Ticked():
                # Whom a person forgot, nobody told.
                self._follow([k for k in self._observed if k not in self._live.members], now, out)
                self._tell(event, bool(self._observed), now, out)
            case AgentJoined(hello, _):
                self._joined(event, now, out)
                self._follow(self._of(hello.host), now, out)
            case AgentLeft() | HostForgotten():
                self._tell(event, True, now, out)
            case ContainerAppeared(host, container):
                self._follow([MemberKey(host, container.key)], now, out, anew=True)
            case ContainerGone(host, key):
                self._follow([MemberKey(host, key)], now, out)
            case LimitsApplied(host, acks):
                self._follow([MemberKey(host, ack.key) for ack in acks], now, out)
            case MemoryApplied(host, memory_acks):
                self._follow([MemberKey(host, ack.key) for ack in memory_acks], now, out)
            case AppsConfigured():
                self._follow([*self._live.members, *self._observed], now, out)
            case _:
                pass
        return out

    def _tell(self, event: Event, concerns: bool, now: float, out: list[Decision]) -> None:
        if concerns:
            out += self._whatif.handle(event, now)

    # ---- who is observed -----------------------------------------------------------

    def _is_observed(self, key: MemberKey) -> bool:
        member = self._live.members.get(key)
        return member is not None and member.state == "observe"

    def _of(self, host: str) -> list[MemberKey]:
        return [key for key in {*self._live.members, *self._observed} if key.host == host]

    def _joined(self, event: AgentJoined, now: float, out: list[Decision]) -> None:
        """Those it brings that were observed before keep what they would have."""
        host = event.hello.host
        stay = [k for k in sorted(self._observed) if k.host == host and self._is_observed(k)]
        self._observed -= {key for key in self._observed if key.host == host and key not in stay}
        self._count()
        listed = [self._live.members[key].info for key in stay]
        self._tell(AgentJoined(event.hello, listed), True, now, out)

    def _follow(
        self, keys: Iterable[MemberKey], now: float, out: list[Decision], *, anew: bool = False
    ) -> None:
        """These may be observed now, or not any more; ``anew``: or something else about them has changed."""
        for key in sorted(set(keys)):
            observed, known = self._is_observed(key), key in self._observed
            if observed and (anew or not known):
                self._observed.add(key)
                self._count()
                self._share(now, out)
                self._tell(ContainerAppeared(key.host, self._live.members[key].info), True, now, out)
            elif known and not observed:
                self._observed.discard(key)
                self._tell(ContainerGone(*key), True, now, out)
        self._count()
        self._share(now, out)

    def _count(self) -> None:
        members = (self._live.members.get(key) for key in self._observed)
        self._apps = sorted({member.info.app for member in members if member})

    # ---- what is left for them -----------------------------------------------------

    def _share(self, now: float, out: list[Decision]) -> None:
        """Their Ω is what the managed containers of their applications leave of it."""
        specs = self._left()
        if specs == self._specs:
            return
        for name, spec in specs.items():
            self._make_room(name, spec, now, out)
        self._specs = specs
        self._tell(AppsConfigured(list(specs.values())), True, now, out)
        for key in sorted(self._observed - self._whatif.containers.keys()):
            # One that went with its host is let go of by ``_follow``, which may come after this.
            if (member := self._live.members.get(key)) is not None:
                self._tell(ContainerAppeared(key.host, member.info), True, now, out)

    def _left(self) -> dict[str, AppSpec]:
        """By name, for the applications of the observed."""
        specs = {}
        for name in self._apps:
            app = self._live.apps.get(name)
            if app is not None and not app.removed:
                specs[name] = replace(app.spec, mode="auto", cpu=app.ledger.free, memory=app.memory.free)
        return specs

    def _make_room(self, name: str, spec: AppSpec, now: float, out: list[Decision]) -> None:
        """When not even their floors are left, they begin anew as those for whom there is no room."""
        app = self._whatif.engine.apps.get(name)
        if app is None:
            return
        try:
            app.refuse_below_floors(spec)
        except Refused:
            for key in list(app.members):
                self._tell(ContainerGone(*key), True, now, out)
