"""Credit given, taken back and drawn: the part of spending a pool that runs ahead of need (credit.py)."""

from collections.abc import Callable

from escra_common.messages import Ack
from escra_controller.credit import EVERY_S, NONE, Credit, Room, credit_for, worth_changing
from escra_controller.events import SetLimit
from escra_controller.policy import Settings, Wish
from escra_controller.rounds import Round
from escra_controller.state import (
    REFILL_TOLERANCE,
    App,
    Member,
    charge_millicores,
    limit_millicores,
)


class Lending:
    """Stateless but for its settings, as the allocator whose part it is."""

    def __init__(self, settings: Settings, grace_until: float, next_rev: Callable[[], int]) -> None:
        self._s = settings
        self._grace_until = grace_until
        self._next_rev = next_rev

    # ---- giving and taking back ----------------------------------------------------

    def credit(self, r: Round, member: Member, target: int) -> int:
        """What goes with an order of ``target``, in millicores.  Who waits for the pool comes first."""
        app = r.app
        if not self._s.credit or member.uncredited or app.unmet or r.now < self._grace_until:
            return 0
        swing = member.rule.swing(target, r.now)
        if swing <= 0 or app.ledger.counted > app.ledger.omega or not r.reaches(member):
            return 0
        swing = min(swing, app.claim(member).want - target)
        return credit_for(
            target, swing, member.info.in_force.period_usec / 1e6, self._room(r, member, target)
        )

    def put(self, r: Round, member: Member, target: int, credit: int) -> None:
        """Book the credit of an order; until it is acknowledged the one before it may still be drawn."""
        refill = int((target + credit) * member.info.in_force.period_usec / 1e6) if credit else 0
        before = r.app.credits[member.key]
        member.ordered_at = r.now
        r.app.credits.put(member.key, Credit(credit, max(refill, before.refill)))

    def adjust(self, r: Round, member: Member) -> None:
        """Nothing else is to be ordered for it: see whether its credit is as it should be."""
        limit, before = member.limit, r.app.credits[member.key].milli
        if limit is None or r.now - member.ordered_at < EVERY_S or r.app.ledger[member.key].pending:
            return
        if worth_changing(before, credit := self.credit(r, member, limit)):
            self._order(r, member, limit, credit)

    def recall(self, r: Round, needed: int) -> int:
        """Take back at least so much, if there is; it is free once that is acknowledged."""
        recalled = 0
        for key, credit in r.app.credits.largest():
            if recalled >= needed:
                break
            member = r.app.members[key]
            if member.limit is None or r.app.ledger[key].pending or not r.reaches(member):
                continue
            self._order(r, member, member.limit, 0)
            recalled += credit
        return recalled

    # ---- what agents say -----------------------------------------------------------

    def acknowledged(self, r: Round, member: Member, ack: Ack, ordered: int) -> None:
        """The last order, of the limit ``ordered``, is in force, or more on its credit."""
        credits, limit = r.app.credits, limit_millicores(ack.in_force) or 0
        before, period_usec = credits[member.key].milli, ack.in_force.period_usec
        refill = int((limit + ack.credit_milli) * period_usec / 1e6) if ack.credit_milli else 0
        credits.put(member.key, Credit(min(before, ack.credit_milli), refill))
        if not before or ack.credit_milli or ack.error:
            return
        if limit > ordered:
            self._count_refill(r, member, limit, period_usec)
            self._record(r, member, ordered, limit)
        elif limit == ordered:
            member.uncredited = True

    def told(self, r: Round, member: Member, ack: Ack) -> None:
        """The agent drew the credit, which is paid for already, or gave it up."""
        app, entry, limit = r.app, r.app.ledger[member.key], limit_millicores(ack.in_force)
        if limit is None:
            return
        app.counted.add(app.ledger.counted, r.now)
        # Of an order under way this says nothing.
        app.ledger.acknowledge(member.key, -1 if entry.pending else 0, self.held(app, member, ack))
        before = member.limit or limit
        if entry.pending:
            # It may have been drawn just before that order: see to it that a refill is counted.
            self._count_refill(r, member, limit, ack.in_force.period_usec)
            return
        member.limit = limit
        app.credits.put(member.key, NONE)
        if limit > before:
            self._count_refill(r, member, limit, ack.in_force.period_usec)
            self._record(r, member, before, limit)

    def _count_refill(self, r: Round, member: Member, limit: int, period_usec: int) -> None:
        for recent in (r.app.refills, member.refills):
            recent.add(int(limit * period_usec / 1e6), r.now)
        member.limits.add(limit, r.now)
        member.drawn = True

    def _record(self, r: Round, member: Member, before: int, limit: int) -> None:
        member.rule.drew(before, r.now)
        r.app.due.put(member.key, r.now)
        cause = "about to run out of quota, so its agent raised it at once, on credit"
        numbers = {"used_cores": member.demand.used() / 1000, "free_cores": r.app.ledger.free / 1000}
        r.record(member, "cpu", Wish(limit, "credit", cause, numbers), before, limit)

    def held(self, app: App, member: Member, ack: Ack) -> int:
        """What it is counted at by this: what is in force and what its agent may add."""
        held = charge_millicores(ack.in_force)
        if held is None:
            return app.ledger[member.key].counted
        return held + self.charge(ack.credit_milli)

    # ---- sums ----------------------------------------------------------------------

    def booked(self, limit: int, credit: int) -> int:
        """What an order is counted at: as if all of its credit were drawn."""
        return self.charge(limit + credit)

    def charge(self, limit: int) -> int:
        """What a limit takes from the pool: the quota and its burst (K8)."""
        return limit + int(limit * self._s.burst)

    def affordable(self, free: float) -> int:
        return int(free / (1 + self._s.burst))

    def _order(self, r: Round, member: Member, limit: int, credit: int) -> None:
        """The same limit with another credit: nothing is written, unless the agent has just drawn it."""
        app, rev = r.app, self._next_rev()
        app.counted.add(app.ledger.counted, r.now)
        app.ledger.order(member.key, self.booked(limit, credit), rev)
        self.put(r, member, limit, credit)
        # What is seen from now on is no answer to the raise before.
        member.last_rev = rev
        r.out.append(SetLimit(*member.key, rev, limit, self.charge(limit) - limit, True, credit))

    def _room(self, r: Round, member: Member, target: int) -> Room:
        app, now, counted = r.app, r.now, 0
        if member.key in app.ledger:
            counted = app.ledger[member.key].counted
        credit, others = app.credits[member.key], app.ledger.counted - counted
        own = (1 + REFILL_TOLERANCE) * app.claim(member).want - member.refills.total(now)
        pool = (1 + REFILL_TOLERANCE) * app.spec.cpu - app.refills.total(now)
        pool -= app.credits.refill - credit.refill
        among = app.credits.standing + (credit.milli == 0)
        ledger = counted + min(app.ledger.free, app.room(member.key.host).cpu)
        return Room(
            own,
            member.limits.peak(now),
            self.affordable(pool - others),
            self.affordable(pool - max(app.counted.peak(now), others + self.charge(target))),
            self._s.credit * self.affordable(app.ledger.free + app.credits.lent()) / among,
            self.affordable(ledger),
        )
