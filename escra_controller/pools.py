"""The pools of one application, CPU and memory, behind what starts a round in both of them."""

from collections.abc import Iterable, Mapping

from escra_controller.allocator import Allocator
from escra_controller.bounds import ALL_HOSTS
from escra_controller.events import Instruction
from escra_controller.memory import MemorySettings
from escra_controller.memoryallocator import MemoryAllocator
from escra_controller.policy import Settings
from escra_controller.rounds import Round
from escra_controller.state import App, Host

SECURE_EVERY_S = 1.0


class Pools:
    """Until ``grace_until`` (the engine's clock) nothing grows and nobody is admitted."""

    def __init__(
        self, cpu: Settings, memory: MemorySettings, grace_until: float, hosts: Mapping[str, Host]
    ) -> None:
        self.cpu = Allocator(cpu, grace_until, self.next_rev)
        self.memory = MemoryAllocator(memory, grace_until, self.next_rev)
        self._hosts = hosts
        self._rev = 0

    def next_rev(self) -> int:
        """Revisions are common to CPU and memory, and to all hosts."""
        self._rev += 1
        return self._rev

    def round(self, app: App, now: float, out: list[Instruction]) -> Round:
        return Round(app, self._hosts, now, out)

    def settle(self, apps: Iterable[App], now: float, out: list[Instruction]) -> None:
        """Something may have become free."""
        for app in apps:
            r = self.round(app, now, out)
            self.cpu.settle(r)
            self.memory.settle(r)

    def tick(self, apps: Iterable[App], now: float, out: list[Instruction]) -> None:
        for app in apps:
            r = self.round(app, now, out)
            app.tidy(now)
            self.cpu.tick(r)
            self.memory.tick(r)
            self._secure(r)

    def _secure(self, r: Round) -> None:
        """Let the bounds on disk follow what is held, so that hardly any grant has to wait for them."""
        app = r.app
        if app.bounds is None or r.now - app.secured_at < SECURE_EVERY_S:
            return
        app.secured_at = r.now
        r.secure(ALL_HOSTS)
        for host in sorted({*app.ledger.hosts(), *app.memory.hosts(), *app.bounds.hosts()}):
            if not app.absent.awaits(host):  # what they hold is only known from the disk
                r.secure(host)
