"""Memory limits on their way to the agents: written to the ledger, and believed when they were read back."""

from collections.abc import Callable

import msgspec

from escra_common.messages import MemoryAck
from escra_controller.events import DenyNeed, SetMemoryLimit
from escra_controller.memory import MemorySettings, Ordered
from escra_controller.policy import Wish
from escra_controller.rounds import Round
from escra_controller.state import Member

# A write the kernel refused is tried again, but not ten times a second.
RETRY_S = 5.0
# Who was found to need more than was known is not asked, or tried, again at once.
ASK_EVERY_S = 1.0


class MemoryOrders:
    """``next_rev`` numbers the orders."""

    def __init__(self, settings: MemorySettings, next_rev: Callable[[], int]) -> None:
        self._s = settings
        self._next_rev = next_rev

    def order(
        self,
        r: Round,
        member: Member,
        target: int,
        wish: Wish,
        *,
        averts: bool = False,
        headroom_bytes: int = 0,
    ) -> None:
        memory, ledger = member.memory, r.app.memory
        rev = self._next_rev()
        # What was last read back: several orders may be under way, but the record is of what was in force.
        before = ledger[member.key].held or None if member.key in ledger else None
        ledger.order(member.key, target, rev, headroom_bytes)
        if headroom_bytes:
            memory.headroom_at = r.now
        # Of several under way only the last is concluded, for all of them.
        averts = averts or (memory.ordered is not None and memory.ordered.averts)
        memory.ordered = Ordered(before, wish, averts)
        memory.limit, memory.last_rev = target, rev
        margin_bytes = self.margin(memory.needed)
        r.out.append(SetMemoryLimit(*member.key, rev, target, margin_bytes, headroom_bytes))

    def conclude(self, r: Round, member: Member, ack: MemoryAck, ordered: Ordered) -> None:
        """What became of an order: nothing is believed but what the kernel was read to hold."""
        memory, wish, in_force = member.memory, ordered.wish, ack.in_force.max_bytes
        memory.limit = in_force
        above = in_force is None or in_force > wish.target
        if in_force is None or (ordered.before is None and (ack.error or above)):
            # Not admitted: the write failed, or it uses more by now than the order would have left it.
            r.app.memory.forget(member.key)
            memory.limit, memory.retry_at = None, r.now + (RETRY_S if ack.error else ASK_EVERY_S)
            r.app.look_at(member)
        elif above:
            # It gave less than it was asked for: it needs more than was known here.
            memory.gives_from = r.now + ASK_EVERY_S
        if ordered.averts and not ack.error and (in_force or 0) > (ordered.before or 0):
            memory.averted += 1
            r.app.oom_averted += 1
        if ack.error and wish.rule == "grow":
            r.out.append(DenyNeed(*member.key, memory.answered_serial, ack.error))
        if in_force != ordered.before or ack.error:
            r.record(member, "memory", _as_it_went(wish, ack), ordered.before, in_force)

    def grant(self, growth: int) -> int:
        """Enough for the growth seen, in bytes per second, over the horizon."""
        return max(int(self._s.grant_min), int(growth * self._s.horizon_s))

    def margin(self, use: int) -> int:
        """What a limit should leave above this use, in bytes."""
        return max(int(self._s.margin_min), int(self._s.margin * use))


def _as_it_went(wish: Wish, ack: MemoryAck) -> Wish:
    if ack.error:
        wish = msgspec.structs.replace(wish, rule="refused", cause=ack.error)
    if ack.answer_usec:
        wish = msgspec.structs.replace(wish, numbers={**wish.numbers, "answer_ms": ack.answer_usec / 1000})
    return wish
