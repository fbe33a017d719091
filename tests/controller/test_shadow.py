"""Observed containers: what would be done is decided, nothing is."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from escra_common.messages import CpuLimit
from escra_controller.events import (
    AppsConfigured,
    ContainerAppeared,
    Decision,
    Event,
    SetLimit,
    SetMemoryLimit,
)
from escra_controller.shadow import Shadow
from escra_controller.state import MemberKey, Refused
from escra_controller.would import Would
from tests.controller.kernels import PERIOD_USEC, Kernel, Memory
from tests.controller.world import MIB, World, spec


class ShadowedWorld(World):
    """Both engines hear of every event, as in the controller."""

    def start(self) -> None:
        self.would_have: list[Decision] = []
        self.shadow: Shadow | None = None
        super().start()

    def handle(self, event: Event) -> None:
        super().handle(event)
        if self.shadow is None or self.shadow._live is not self.engine:
            self.shadow = Shadow(self.engine, now=self.now)
        self.would_have += self.shadow.handle(event, self.now)
        self.shadow.check()

    def would(self, kernel: Kernel, host: str = "h1") -> Would:
        assert self.shadow is not None
        would = self.shadow.would(MemberKey(host, kernel.info.key))
        assert would is not None
        return would

    def would_hold(self, app: str = "shop") -> tuple[int, int]:
        """Millicores and bytes that the observed of an application would hold."""
        assert self.shadow is not None
        engine = self.shadow._whatif.engine
        found = engine.apps.get(app)
        return (found.ledger.counted, found.memory.counted) if found else (0, 0)

    def would_need(self) -> int:
        """Bytes that the observed use, each with the margin that is left above use or the floor."""
        assert self.shadow is not None
        members = self.shadow._whatif.engine.members.values()
        return sum(max(m.memory.needed + max(m.memory.needed // 10, 8 * MIB), 16 * MIB) for m in members)


def observing(*wants: float, cpu: int = 3000, **more: Any) -> tuple[ShadowedWorld, list[Kernel]]:
    w = ShadowedWorld(spec(cpu=cpu, **more))
    w.join("h1")
    return w, [w.add("h1", want, mode="observe") for want in wants]


def written(w: World) -> list[object]:
    return [order for host in w.hosts.values() for order in host.orders]


def relabel(w: World, kernel: Kernel, mode: str, host: str = "h1") -> None:
    kernel.info = msgspec.structs.replace(kernel.info, mode=mode)
    w.handle(ContainerAppeared(host, w.describe(kernel)))


def test_an_observed_container_would_get_what_it_uses_and_is_never_written_to() -> None:
    w, (busy, calm) = observing(1500, 100)
    for _ in range(80):
        w.tick(settle=False)
        assert written(w) == []
    busy_would, calm_would = w.would(busy), w.would(calm)
    assert busy_would.cpu_milli is not None
    assert calm_would.cpu_milli is not None
    assert 1500 <= busy_would.cpu_milli <= 1500 / 0.8 * 1.05
    assert 100 <= calm_would.cpu_milli <= 150
    assert busy_would.throttled == 0
    assert busy.limit is None
    assert busy.writes == 0


def test_its_decisions_are_marked_and_kept_where_people_look() -> None:
    w, (busy,) = observing(1500)
    w.run(5)
    assert w.would_have
    assert all(decision.observed for decision in w.would_have)
    assert [d for _, d in w.engine.decisions] == w.would_have
    member = w.engine.members[MemberKey("h1", busy.info.key)]
    assert list(member.decisions) == w.would_have[-64:]
    assert w.would_have[0].rule == "newcomer"


def test_work_past_the_limit_it_would_have_counts_as_throttled() -> None:
    w, (busy,) = observing(200)
    w.run(10)
    low = w.would(busy).cpu_milli
    assert low is not None
    assert low < 1000
    busy.want = 1000
    w.tick()
    assert w.would(busy).throttled == 1 - low / 1000
    raised = [d for d in w.would_have if d.rule == "throttled"]
    assert raised
    assert raised[-1].before == low
    w.run(3)
    assert w.would(busy).throttled == 0


def test_throttling_at_a_real_limit_is_an_argument_for_more() -> None:
    w, _ = observing()
    half = CpuLimit(PERIOD_USEC // 2, PERIOD_USEC)
    busy = w.add("h1", 2000, mode="observe", original=half, in_force=half)
    w.run(0.3)
    would = w.would(busy).cpu_milli
    assert would is not None
    assert would > 500
    assert busy.limit == 500


def test_memory_past_the_limit_it_would_have_is_granted() -> None:
    w, _ = observing()
    kernel = w.add("h1", 0, mode="observe", memory=Memory(used=64 * MIB, want=64 * MIB, limit=512 * MIB))
    w.run(60)  # what it does not use would come back
    low = w.would(kernel).memory_bytes
    assert low is not None
    assert 64 * MIB < low < 128 * MIB
    w.grow("h1", kernel, 300 * MIB)
    w.tick()
    grown = w.would(kernel).memory_bytes
    assert grown is not None
    assert grown > 300 * MIB
    assert "grow" in [d.rule for d in w.would_have]
    assert kernel.memory.limit == 512 * MIB
    assert not kernel.memory.managed


def test_where_there_is_no_memory_it_would_have_been_killed_once() -> None:
    w, _ = observing(memory=256 * MIB)
    kernel = w.add("h1", 0, mode="observe", memory=Memory(used=64 * MIB, want=64 * MIB))
    w.run(2)
    w.grow("h1", kernel, 400 * MIB)
    w.run(5)
    kills = [d for d in w.would_have if d.rule == "oom-kill"]
    assert len(kills) == 1
    assert kills[0].cause.startswith(
        "the kernel would have killed a task at its limit; its request was denied:"
    )
    assert w.would_hold()[1] <= 256 * MIB


def test_what_managed_containers_hold_is_not_there_for_the_observed() -> None:
    w, (watched,) = observing(2500)
    managed = w.add("h1", 1000)
    w.run(10)
    held = managed.held
    assert held > 0
    assert w.would_hold()[0] + held <= 3000
    cpu = w.would(watched).cpu_milli
    assert cpu is not None
    assert cpu + held <= 3000


def test_no_room_even_for_floors_is_no_limit_at_all() -> None:
    w, (watched,) = observing(500, cpu=1000)
    w.run(3)
    assert w.would(watched).cpu_milli
    greedy = w.add("h1", 5000)
    w.run(10)
    assert greedy.held == 1000, "Ω is all its own: nothing is kept for those that are only observed"
    assert w.would(watched).cpu_milli is None
    w.remove("h1", greedy)
    w.run(1)
    assert w.would(watched).cpu_milli


def test_an_application_goes_to_observe_and_back_while_it_runs() -> None:
    w = ShadowedWorld(spec())
    w.join("h1")
    half = CpuLimit(PERIOD_USEC // 2, PERIOD_USEC)
    kernel = w.add("h1", 1500, original=half, in_force=half, memory=Memory(64 * MIB, limit=512 * MIB))
    w.run(5)
    assert kernel.held > 500
    assert kernel.memory.managed
    w.handle(AppsConfigured([replace(w.specs[0], mode="observe")]))
    w.settle()
    assert (kernel.limit, kernel.managed) == (500, False)
    assert (kernel.memory.limit, kernel.memory.managed) == (512 * MIB, False)
    member = w.engine.members[MemberKey("h1", kernel.info.key)]
    assert member.state == "observe"
    for _ in range(20):
        w.tick(settle=False)
        assert written(w) == []
    assert w.would(kernel).cpu_milli
    w.handle(AppsConfigured([w.specs[0]]))
    w.run(3)
    assert kernel.managed
    assert kernel.held > 500
    assert w.shadow is not None
    assert w.shadow.would(member.key) is None


def test_a_label_that_changes_gives_back_and_takes() -> None:
    w = ShadowedWorld(spec())
    w.join("h1")
    kernel = w.add("h1", 1500)
    w.run(2)
    assert kernel.managed
    relabel(w, kernel, "observe")
    w.run(2)
    assert not kernel.managed
    assert kernel.limit is None
    assert w.would(kernel).cpu_milli
    relabel(w, kernel, "auto")
    w.run(2)
    assert kernel.managed


def test_a_reconnect_keeps_what_it_would_have() -> None:
    w, (busy,) = observing(1500)
    w.run(5)
    before = w.would(busy)
    w.part("h1")
    w.run(1)
    w.join("h1")
    assert w.would(busy) == before


class Mixed(RuleBasedStateMachine):
    """Managed and observed containers of one application: together they never pass Ω."""

    @initialize()
    def start(self) -> None:
        self.w = ShadowedWorld(spec(cpu=2000, memory=512 * MIB))
        self.kernels: dict[str, list[Kernel]] = {"h1": [], "h2": []}
        for host in self.kernels:
            self.w.join(host)

    @rule(
        host=st.sampled_from(["h1", "h2"]), mode=st.sampled_from(["auto", "observe"]), use=st.integers(0, 200)
    )
    def add(self, host: str, mode: str, use: int) -> None:
        if len(self.kernels[host]) < 4:
            memory = Memory(used=use * MIB, want=use * MIB)
            self.kernels[host].append(self.w.add(host, 0, mode=mode, memory=memory))

    @rule(host=st.sampled_from(["h1", "h2"]), which=st.integers(0, 3), want=st.integers(0, 3000))
    def work(self, host: str, which: int, want: int) -> None:
        for kernel in self._one(host, which):
            kernel.want = want

    @rule(host=st.sampled_from(["h1", "h2"]), which=st.integers(0, 3), want=st.integers(0, 600))
    def grow(self, host: str, which: int, want: int) -> None:
        for kernel in self._one(host, which):
            self.w.grow(host, kernel, want * MIB)

    @rule(
        host=st.sampled_from(["h1", "h2"]),
        which=st.integers(0, 3),
        mode=st.sampled_from(["auto", "observe", "off"]),
    )
    def relabel(self, host: str, which: int, mode: str) -> None:
        for kernel in self._one(host, which):
            if self.w.hosts[host].connected:
                relabel(self.w, kernel, mode, host)

    @rule(host=st.sampled_from(["h1", "h2"]), which=st.integers(0, 3))
    def remove(self, host: str, which: int) -> None:
        for kernel in self._one(host, which):
            self.kernels[host].remove(kernel)
            self.w.remove(host, kernel)

    @rule(host=st.sampled_from(["h1", "h2"]))
    def flap(self, host: str) -> None:
        if self.w.hosts[host].connected:
            self.w.part(host)
        else:
            self.w.join(host)

    @rule(mode=st.sampled_from(["auto", "observe"]), cpu=st.sampled_from([1500, 2000]))
    def configure(self, mode: str, cpu: int) -> None:
        with contextlib.suppress(Refused):
            self.w.handle(AppsConfigured([spec(cpu=cpu, memory=512 * MIB, mode=mode)]))

    @rule(ticks=st.integers(1, 12))
    def time(self, ticks: int) -> None:
        for _ in range(ticks):
            self.w.tick()

    @invariant()
    def only_the_managed_are_written_to(self) -> None:
        if not hasattr(self, "w"):
            return
        assert self.w.shadow is not None
        self.w.shadow.check()
        for host in self.kernels:
            # What was under way when it began to be observed is followed by its release.
            last = {order.key: order for order in self.w.hosts[host].orders}
            for key, order in last.items():
                member = self.w.engine.members.get(MemberKey(host, key))
                if member is not None and member.state == "observe":
                    assert not isinstance(order, SetLimit | SetMemoryLimit)

    def _one(self, host: str, which: int) -> Sequence[Kernel]:
        return self.kernels[host][which : which + 1]

    def teardown(self) -> None:
        """At rest, and with all hosts back, what is held and what would be held are within Ω together."""
        if not hasattr(self, "w"):
            return
        for host in self.kernels:
            if not self.w.hosts[host].connected:
                self.w.join(host)
        for _ in range(30):
            self.w.tick()
        app = self.w.engine.apps["shop"]
        cpu, memory = self.w.would_hold()
        if app.ledger.counted <= app.ledger.omega:
            assert cpu + app.ledger.counted <= app.ledger.omega
        if app.memory.counted <= app.memory.omega:
            # Memory that is in use cannot be had back, also where it is only imagined to be limited.
            assert memory <= max(app.memory.omega - app.memory.counted, self.w.would_need())


Mixed.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestMixed = Mixed.TestCase
