"""Promise 1 when the controller itself crashes at any moment: nobody holds what the next one does not count.

As Chaos, and the controller starts anew from what was on its disk, which is written late.  The sum over
ALL kernels is checked after every step, whether or not their hosts have come back.
"""

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from escra_controller.events import HostForgotten
from escra_controller.state import Refused
from tests.controller.test_engine_chaos import HOSTS, Chaos, hosts
from tests.controller.world import MIB, World, spec


class DurableChaos(Chaos):
    @initialize()
    def begin(self) -> None:
        self.world = World(spec(cpu=3000, memory=600 * MIB), spec("other", cpu=500), disk={})
        self.omega = 3000
        for host in HOSTS:
            self.world.join(host)
        self.world.settle()

    @rule(n=st.integers(1, 6))
    def the_disk_is_written(self, n: int) -> None:
        for _ in range(n):
            self.world.write()

    @rule(n=st.integers(0, 3), late=hosts)
    def controller_crashes(self, n: int, late: str) -> None:
        self.the_disk_is_written(n)
        self.world.crash()
        self.orders_arrive(late, n)

    @rule(host=hosts)
    def host_dies_and_is_forgotten(self, host: str) -> None:
        if self.world.hosts[host].connected:
            self.world.part(host)
        for kernel in list(self.world.hosts[host].kernels.values()):
            self.world.remove(host, kernel)
        try:
            self.world.handle(HostForgotten(host))
        except Refused:
            return


TestDurableChaos = DurableChaos.TestCase
TestDurableChaos.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, phases=[Phase.generate]
)
