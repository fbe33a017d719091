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
from tests.controller.world import PERIOD_USEC, Kernel, World, spec

HOSTS = ("h1", "h2", "h3")
hosts = st.sampled_from(HOSTS)
wants = st.sampled_from([0.0, 20.0, 300.0, 900.0, 2500.0, 8000.0])


class Chaos(RuleBasedStateMachine):
    kernels = Bundle("kernels")

    @initialize()
    def begin(self) -> None:
        self.world = World(spec(cpu=3000), spec("other", cpu=500))
        self.omega = 3000
        for host in HOSTS:
            self.world.join(host)

    @rule(target=kernels, host=hosts, want=wants, quota=st.sampled_from([None, 10_000, 250_000]))
    def start(self, host: str, want: float, quota: int | None) -> tuple[str, Kernel]:
        limit = CpuLimit(quota, PERIOD_USEC)
        return host, self.world.add(host, want, original=limit, in_force=limit)

    @rule(place=kernels)
    def end(self, place: tuple[str, Kernel]) -> None:
        host, kernel = place
        if kernel.info.key in self.world.hosts[host].kernels:
            self.world.remove(host, kernel)

    @rule(place=kernels, want=wants)
    def demand(self, place: tuple[str, Kernel], want: float) -> None:
        place[1].want = want

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
            self.world.handle(AppsConfigured([spec(cpu=3000), spec("other", cpu=500)]))
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


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
