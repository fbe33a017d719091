"""Memory that comes back: every few seconds what was not used lately, and at once when others need it.

A cut frees nothing until it is acknowledged, and no cut goes below use: an agent makes it only as far as it
harms nobody, and says how far that was.
"""

from collections.abc import Mapping

from escra_controller.memory import MemorySettings
from escra_controller.memoryorders import MemoryOrders
from escra_controller.policy import Wish
from escra_controller.rounds import Round
from escra_controller.sharing import proportionally
from escra_controller.state import App, Member, MemberKey

# A cut of less than this, and than this share of the limit, is not worth the write.
LEAST_CUT_BYTES = 2 << 20
LEAST_CUT = 0.05

MIB = 1 << 20


class MemoryReclaim:
    """Stateless but for its settings; the state is the application's."""

    def __init__(self, settings: MemorySettings, orders: MemoryOrders) -> None:
        self._s = settings
        self._orders = orders

    def look_at(self, r: Round, member: Member) -> None:
        """Every few seconds: down to the recent peak of use and a margin, file cache included.

        Headroom that was not drawn on for so long comes back, too.
        """
        memory = member.memory
        if r.now - memory.looked_at < self._s.reclaim_s:
            return
        first, memory.looked_at = memory.looked_at == float("-inf"), r.now
        if first or not self._can_give(r.app, member):
            return
        peak = memory.peaks.peak(r.now)
        if not peak:
            return
        target = max(r.app.memory_floor(member), peak + self._orders.margin(peak))
        numbers = {"peak_mib": peak / MIB, "needed_mib": memory.needed / MIB}
        wish = Wish(target, "reclaim", "it did not use the rest lately", numbers)
        stale = r.now - memory.headroom_at >= self._s.reclaim_s
        self._cut(r, member, target, wish, headroom=stale)

    def collect(self, r: Round, wanted: int, asker: Member | None, why: str) -> None:
        """Ask all others, on all hosts at once: for what they did not use lately, then for file cache."""
        givers = {
            m.key: m
            for m in r.reachable
            if m is not asker and m.memory.gives_from <= r.now and self._can_give(r.app, m)
        }
        spare = self._spare(r, wanted, givers)
        wanted = max(0, wanted - sum(spare.values()))
        peaks = {key: max(m.memory.peaks.peak(r.now), m.memory.needed) for key, m in givers.items()}
        unused = {key: self._above(r.app, m, peaks[key]) for key, m in givers.items()}
        given = proportionally(wanted, unused)
        rest = {key: self._above(r.app, m, m.memory.needed) - given[key] for key, m in givers.items()}
        more = proportionally(wanted - sum(given.values()), {k: max(0, v) for k, v in rest.items()})
        for key, member in givers.items():
            # Spread over many it comes to little from each, but nothing less is worth a write.
            give = given[key] + more[key] and max(given[key] + more[key], self._least_cut(member))
            target = (member.memory.limit or 0) - min(give, given[key] + max(0, rest[key]))
            numbers = {"needed_mib": member.memory.needed / MIB}
            wish = Wish(target, "give", f"it does not need the rest, and {why}", numbers)
            self._cut(r, member, target, wish, headroom=key in spare)

    def take_back(self, r: Round, wanted: int, why: str) -> bool:
        """Only headroom, by which nobody loses what it has; whether some comes back soon."""
        givers = {m.key: m for m in r.reachable if self._can_give(r.app, m)}
        for key in self._spare(r, wanted, givers):
            limit = givers[key].memory.limit or 0
            self._orders.order(r, givers[key], limit, Wish(limit, "give", why, {}))
        under_way = (r.app.memory[m.key] for m in r.reachable if m.key in r.app.memory)
        return any(e.headroom or (e.frees and e.ordered >= e.held) for e in under_way)

    def _spare(self, r: Round, wanted: int, givers: Mapping[MemberKey, Member]) -> dict[MemberKey, int]:
        """Whose headroom is to come back, and how much that is: all of it, of as many as it takes."""
        headroom = {key: r.app.memory[key].headroom for key in givers}
        return {key: headroom[key] for key, part in proportionally(wanted, headroom).items() if part}

    def _above(self, app: App, member: Member, use: int) -> int:
        """How far the limit is above this use with its margin, and above the floor."""
        keeps = max(app.memory_floor(member), use + self._orders.margin(use))
        return max(0, (member.memory.limit or 0) - keeps)

    def _can_give(self, app: App, member: Member) -> bool:
        memory = member.memory
        return (
            memory.limit is not None
            and memory.waiting is None
            and member.key in app.memory
            and not app.memory[member.key].pending
        )

    def _cut(self, r: Round, member: Member, target: int, wish: Wish, *, headroom: bool) -> None:
        """To the target if that is worth a write; else only the headroom is taken back, if it is to be."""
        limit = member.memory.limit or 0
        if limit - target >= self._least_cut(member):
            self._orders.order(r, member, target, wish)
        elif headroom and r.app.memory[member.key].headroom:
            self._orders.order(r, member, limit, wish)

    def _least_cut(self, member: Member) -> int:
        return max(LEAST_CUT_BYTES, int(LEAST_CUT * (member.memory.limit or 0)))

    def under_way(self, r: Round) -> bool:
        """Whether a cut may still free something."""
        ledger = r.app.memory
        return any(ledger[m.key].frees for m in r.reachable if m.key in ledger)
