"""Promise 1 under everything a network and its hosts can do: any order of anything.

The invariant is checked by World after every single step: what the kernels hold is never above what
the ledger counts, and that never above Ω.
"""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from escra_common.messages import CpuLimit
from escra_controller.events import AppResized, AppsConfigured, ContainerAppeared
from escra_controller.state import Refused
from tests.controller.kernels import PERIOD_USEC, Kernel, Memory
from tests.controller.world import MIB, World, spec

HOSTS = ("h1", "h2", "h3")
hosts = st.sampled_from(HOSTS)
wants = st.sampled_from([0.0, 20.0, 300.0, 900.0, 2500.0, 8000.0])
sizes = st.sampled_from([0, 10, 60, 200, 500])  # MiB


class Chaos(RuleBasedStateMachine):
    kernels = Bundle("kernels")

    @initialize()
    def begin(self) -> None:
        self.world = World(spec(cpu=3000, memory=600 * MIB), spec("other", cpu=500))
        self.omega = 3000
        for host in HOSTS:
            self.world.join(host)

    @rule(
        target=kernels,
        host=hosts,
        want=wants,
        quota=st.sampled_from([None, 10_000, 250_000]),
        size=st.sampled_from([None, 64, 512]),
        used=st.integers(0, 64),
    )
    def start(
        self, host: str, want: float, quota: int | None, size: int | None, used: int
    ) -> tuple[str, Kernel]:
        limit = CpuLimit(quota, PERIOD_USEC)
        memory = Memory(used=used * MIB, want=used * MIB, limit=size and size * MIB)
        return host, self.world.add(host, want, memory=memory, original=limit, in_force=limit)

    @rule(place=kernels)
    def end(self, place: tuple[str, Kernel]) -> None:
        host, kernel = place
        if kernel.info.key in self.world.hosts[host].kernels:
            self.world.remove(host, kernel)

    @rule(place=kernels, want=wants)
    def demand(self, place: tuple[str, Kernel], want: float) -> None:
        place[1].want = want

    @rule(place=kernels, size=sizes)
    def memory_grows_or_shrinks(self, place: tuple[str, Kernel], size: int) -> None:
        host, kernel = place
        if kernel.info.key in self.world.hosts[host].kernels:
            self.world.grow(host, kernel, size * MIB)

    @rule(place=kernels, cache=sizes)
    def files_are_read(self, place: tuple[str, Kernel], cache: int) -> None:
        place[1].memory.cache = cache * MIB

    @rule(memory=st.sampled_from([100, 600, 2000]))
    def memory_is_resized(self, memory: int) -> None:
        try:
            self.world.handle(AppResized("shop", memory=memory * MIB))
        except Refused:
            return

    @rule(n=st.integers(1, 15))
    def time_passes(self, n: int) -> None:
        for _ in range(n):
            self.world.tick(settle=False)

    @rule(host=hosts, n=st.integers(1, 5))
    def orders_arrive(self, host: str, n: int) -> None:
        for _ in range(n):
            self.world.deliver_order(host)

    @rule(host=hosts, n=st.integers(1, 5))
    def acknowledgements_arrive(self, host: str, n: int) -> None:
        for _ in range(n):
            self.world.deliver_ack(host)

    @rule(place=kernels, mode=st.sampled_from(["auto", "observe", "off"]))
    def mode_changes(self, place: tuple[str, Kernel], mode: str) -> None:
        host, kernel = place
        kernel.info = msgspec.structs.replace(kernel.info, mode=mode)
        if self.world.hosts[host].connected and kernel.info.key in self.world.hosts[host].kernels:
            self.world.handle(ContainerAppeared(host, self.world.describe(kernel)))

    @rule(place=kernels, app=st.sampled_from(["shop", "other"]))
    def application_changes(self, place: tuple[str, Kernel], app: str) -> None:
        host, kernel = place
        if self.world.hosts[host].connected and kernel.info.key in self.world.hosts[host].kernels:
            self.world.move(host, kernel, app)

    @rule(place=kernels)
    def quota_will_not_do(self, place: tuple[str, Kernel]) -> None:
        host, kernel = place
        if self.world.hosts[host].connected:
            self.world.alarm(host, kernel, in_order=False)

    @rule()
    def everything_arrives(self) -> None:
        self.world.settle()

    @rule(host=hosts)
    def connection_breaks(self, host: str) -> None:
        self.world.part(host)

    @rule(host=hosts)
    def agent_comes_back(self, host: str) -> None:
        self.world.join(host)

    @rule(omega=st.sampled_from([400, 1500, 3000, 6000]))
    def resized(self, omega: int) -> None:
        try:
            self.world.handle(AppResized("shop", cpu=omega))
        except Refused:
            return

    @rule(orders=st.integers(0, 3))
    def application_is_removed_and_defined_again(self, orders: int) -> None:
        self.world.handle(AppsConfigured([spec("other", cpu=500)]))
        for host in HOSTS:
            self.orders_arrive(host, orders)
        try:
            self.world.handle(AppsConfigured([spec(cpu=3000, memory=600 * MIB), spec("other", cpu=500)]))
        except Refused:
            self.world.settle()
            self.world.handle(AppsConfigured([spec(cpu=3000), spec("other", cpu=500)]))

    @invariant()
    def books_are_right(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """At rest, with everybody back, the limits fit Ω."""
        if not hasattr(self, "world"):
            return
        for host in HOSTS:
            self.world.join(host)
        self.world.run(5)
        app = self.world.engine.apps["shop"]
        floors = sum(app.floor(m) for m in app.members.values() if m.state == "managed")
        assert self.world.held() <= max(app.spec.cpu, floors)
        # What cannot be undone by any limit is what they use.
        in_use = sum(
            max(app.memory_floor(m), m.memory.needed + 8 * MIB, int(1.1 * m.memory.needed))
            for m in app.members.values()
            if m.memory.limit is not None
        )
        assert self.world.held_bytes() <= max(app.spec.memory, 1.06 * in_use + 2 * MIB)
        for member in app.members.values():
            assert member.memory.waiting is None, "nobody waits for an answer for ever"
            assert not app.memory[member.key].pending if member.key in app.memory else True


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
