"""Memory that an agent may take by itself: a need mostly waits for the way to the controller and back.

Headroom goes with an order and is counted as if it were in force already, so Ω holds whatever becomes of the
agent.  It comes back as limits do: by another order, once that is acknowledged.
"""

from escra_common.messages import MemoryDrawn
from escra_controller.memory import MemorySettings, at_limit, need_numbers, why_needed
from escra_controller.memoryorders import MemoryOrders
from escra_controller.policy import Wish
from escra_controller.rounds import Round
from escra_controller.state import Member

# Less is not worth telling of.
LEAST_HEADROOM_BYTES = 4 << 20


class MemoryHeadroom:
    """Stateless but for its settings; the state is the application's."""

    def __init__(self, settings: MemorySettings, orders: MemoryOrders) -> None:
        self._s = settings
        self._orders = orders

    def beside(self, r: Round, member: Member, target: int, growth: int, among: int = 1) -> int:
        """How much an order for ``target`` may leave to its agent for the next need: one more grant.

        Only of what is plentiful, for so many: others can have it back, but not before this agent was told.
        """
        ledger, ceiling = r.app.memory, r.app.memory_ceiling(member)
        more = target - (ledger[member.key].counted if member.key in ledger else 0)
        left = min(ledger.free, r.app.room(member.key.host).memory) - more
        share = int(left * self._s.headroom_share / among)
        headroom = min(self._orders.grant(growth), share, ceiling - target)
        return headroom if headroom >= LEAST_HEADROOM_BYTES else 0

    def welcome(self, r: Round, member: Member, wish: Wish) -> None:
        """One that has just been admitted may well grow now; so may the others, of whom many are new."""
        limit = member.memory.limit
        if limit and (headroom := self.beside(r, member, limit, 0, among=len(r.app.members))):
            self._orders.order(r, member, limit, wish, headroom_bytes=headroom)

    def drew(self, r: Round, member: Member, drawn: MemoryDrawn) -> None:
        """Its agent has met a need out of it; there is to be some for the next one."""
        memory, ledger, need = member.memory, r.app.memory, drawn.need
        if member.key not in ledger:
            return
        held = drawn.in_force.max_bytes
        in_force = ledger[member.key].counted if held is None else held
        ledger.drew(member.key, in_force)
        before = memory.limit
        if before is None or drawn.rev != memory.last_rev:  # let go, or about to have another limit
            return
        memory.limit, memory.answered_serial = in_force, need.serial
        memory.needed = need.needed_bytes
        memory.peaks.add(need.needed_bytes, r.now)
        if at_limit(need):
            memory.averted += 1
            r.app.oom_averted += 1
        numbers = need_numbers(need, ledger.free) | {"answer_ms": drawn.answer_usec / 1000}
        wish = Wish(in_force, "grow", f"{why_needed(need)}; met out of its headroom", numbers)
        r.record(member, "memory", wish, before, in_force)
        if headroom := self.beside(r, member, in_force, need.growth):
            self._orders.order(r, member, in_force, wish, headroom_bytes=headroom)
