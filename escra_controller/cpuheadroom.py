"""Quota that an agent may take by itself: a burst need not wait for the way to the controller and back.

Headroom goes with an order and is counted as if it were in force already, so Ω holds whatever becomes of the
agent.  It comes back as limits do: by another order, once that is acknowledged; one with the same limit costs
no write.
"""

from collections.abc import Callable

from escra_common.messages import Ack
from escra_controller.events import SetLimit
from escra_controller.policy import Settings, Wish
from escra_controller.rounds import Round
from escra_controller.state import Member, charge_millicores, limit_millicores

# Less than this share of the limit is not worth a write.
LEAST_HEADROOM = 0.1
# Who uses this part of its limit works.
AT_WORK = 0.5
# From this part of its ceiling on what a write lets through counts (K3), which the controller has to weigh.
NEAR_CEILING = 0.9


class CpuHeadroom:
    """Stateless but for its settings; the state is the application's.  ``next_rev`` numbers the orders."""

    def __init__(self, settings: Settings, grace_until: float, next_rev: Callable[[], int]) -> None:
        # With a burst (K8) an agent cannot tell what is left of a period, and other rules know no alarm.
        here = settings.name == "escra" and not settings.burst
        self._share = settings.headroom_share if here else 0.0
        self._grace_until = grace_until
        self._next_rev = next_rev

    def beside(self, r: Round, member: Member, target: int) -> int:
        """How much an order for ``target`` may leave to its agent.

        Agents together get a share of what nobody holds, and each of them half of what is left of that: it
        hardly makes anybody's growth smaller.  While others wait for more there is none, nor in the
        time of grace: hosts that are not back yet may hold what seems to be free.
        """
        if not self._share or r.app.unmet or r.now < self._grace_until:
            return 0
        ledger, claim = r.app.ledger, r.app.claim(member)
        entry = ledger[member.key]
        free = min(ledger.free, r.app.room(member.key.host).cpu) + entry.counted - target
        others = ledger.headroom - entry.headroom
        share = int((self._share * (free + others) - others) / 2)
        headroom = min(share, int(NEAR_CEILING * claim.want) - target)
        return headroom if target > claim.floor and headroom >= LEAST_HEADROOM * target else 0

    def drew(self, r: Round, member: Member, ack: Ack) -> None:
        """Its agent went up by itself; the sample that made it do so comes next."""
        ledger, before = r.app.ledger, member.limit
        held = charge_millicores(ack.in_force)
        ledger.drew(member.key, ledger[member.key].counted if held is None else held)
        member.headroom_rev = 0
        member.last_rev = member.raised_by = ack.rev
        member.limit = limit_millicores(ack.in_force)
        if before is None or member.limit is None or ack.error:
            return
        member.limits.add(before, r.now)
        member.drawn_from = before
        cause = "its quota will not do for the period under way; met out of its headroom"
        wish = Wish(member.limit, "headroom", cause, {"free_cores": ledger.free / 1000}, throttled=True)
        r.record(member, "cpu", wish, before, member.limit)

    def offer(self, r: Round, member: Member) -> None:
        """Who works may soon need more; its agent looks closely at whom this is true of, too."""
        limit, entry = member.limit, r.app.ledger[member.key]
        if not self._share or not r.app.ledger.free or limit is None or entry.headroom or entry.pending:
            return
        works = member.demand.dry or member.demand.used() >= AT_WORK * limit
        if works and (headroom := self.beside(r, member, limit)):
            self._order(r, member, limit, headroom)

    def take_back(self, r: Round, wanted: int) -> int:
        """Only headroom, by which nobody loses what it has; how much will come back."""
        ledger, coming = r.app.ledger, 0
        if not ledger.headroom:
            return 0
        for member in r.reachable:
            entry = ledger.get(member.key)
            if coming >= wanted:
                break
            if entry and entry.headroom and not entry.pending and member.state == "managed" and member.limit:
                coming += entry.headroom
                self._order(r, member, member.limit, 0)
        return coming

    def _order(self, r: Round, member: Member, limit: int, headroom: int) -> None:
        """The limit stays, and so does what is known of it."""
        raised = member.raised_by == member.last_rev
        rev = self.number(member, headroom)
        if raised:
            member.raised_by = rev
        r.app.ledger.order(member.key, limit, rev, headroom)
        r.out.append(SetLimit(*member.key, rev, limit, 0, True, headroom))

    def number(self, member: Member, headroom: int) -> int:
        """The revision of its next order; the one after it is for what its agent takes by itself."""
        member.last_rev = self._next_rev()
        member.headroom_rev = self._next_rev() if headroom else 0
        return member.last_rev
