"""From wishes to orders: the only place that spends an application's pool.

Shrinks go out at once and free nothing until they are acknowledged; growth is paid from
what is free by then; when that is not enough, those above their fair share give.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import ceil

from escra_common.messages import Ack
from escra_controller.bounds import Bound
from escra_controller.contention import SHARE_EVERY_S, UNMET_S, Contention
from escra_controller.cpuheadroom import CpuHeadroom
from escra_controller.events import SetLimit
from escra_controller.policy import Seen, Settings, Wish
from escra_controller.rounds import Round
from escra_controller.sharing import Claim, max_min
from escra_controller.state import (
    REFILL_TOLERANCE,
    App,
    Member,
    MemberKey,
    charge_millicores,
    limit_millicores,
)

# A raise of less than this, and than this share of the limit, is not worth the write.
LEAST_GROWTH_MILLI = 5
LEAST_GROWTH = 0.03
# What a write at a boundary is expected to let through, in millicore-seconds, until its agent says what
# it was: the use of the few ms until the boundary is seen.
ALIGNED_REFILL = 5
# A raise at once is preferred to a larger one at the next boundary when it is at least this much.
RELIEF = 1.25
# Who was sampled is not looked at again by a tick if the next sample comes first, or a little late.
LOOK_AGAIN_S = 0.15
# A write the kernel refused is tried again, but not ten times a second.
RETRY_S = 5.0


class Allocator:
    """Stateless but for its settings; the state is the application's.  ``next_rev`` numbers the orders."""

    def __init__(self, settings: Settings, grace_until: float, next_rev: Callable[[], int]) -> None:
        self._s = settings
        self._grace_until = grace_until
        self._headroom = CpuHeadroom(settings, grace_until, next_rev)
        self._contention = Contention(settings, self._headroom, self._order)

    # ---- what starts a round -------------------------------------------------------

    def sampled(self, r: Round, members: Collection[Member]) -> None:
        """New intervals arrived for ``members``."""
        self._decide(r, members, sampled=True)
        for member in members:
            r.app.due.put(member.key, r.now + LOOK_AGAIN_S)

    def tick(self, r: Round) -> None:
        """Time passed: idle containers rest, unused quota comes back, newcomers are tried again."""
        app = r.app
        due = [app.members[key] for key in app.due.take(r.now, len(app.members)) if key in app.members]
        self._decide(r, [member for member in due if r.reaches(member)], sampled=False)
        self.settle(r)

    def acknowledged(self, r: Round, member: Member, ack: Ack) -> bool:
        """The kernel was read back after a write; whether that was the last one under way.

        Then something may have become free: ``settle`` is due, once for all that were read back together.
        """
        r.app.counted.add(r.app.ledger.counted, r.now)
        drawn = ack.rev == member.headroom_rev
        if drawn:
            self._headroom.drew(r, member, ack)
        held = self._held(r.app, member, ack)
        last = r.app.ledger.acknowledge(member.key, ack.rev, held, carried_out=not ack.error)
        extra = ceil(min(ack.extra_usec, ack.in_force.quota_usec or 0) / 1000)
        r.app.refills.came(member.key, extra, r.now, last=last)
        if extra:
            member.refilled.add(extra, r.now)
        if not (last or (drawn and ack.error)):
            return False
        member.problem = ack.error
        if ack.error:
            self._failed(r, member, ack)
        else:
            member.state = "managed"
            member.limit = limit_millicores(ack.in_force)
        r.app.due.put(member.key, r.now)
        return True

    def settle(self, r: Round) -> None:
        """Something may have become free: newcomers first, then wishes that were not met."""
        ledger = r.app.ledger
        if ledger.counted > ledger.omega:
            if r.now - r.app.shared_at >= SHARE_EVERY_S:
                self._contention.collect(r, ledger.counted - ledger.omega, 0, "Ω was exceeded")
            return
        self._admit(r)
        if not r.app.unmet:
            return
        standing = {k: (wish, until) for k, (wish, until) in r.app.unmet.items() if until > r.now}
        r.app.unmet.clear()
        self._grow(r, standing)

    # ---- rules ---------------------------------------------------------------------

    def _decide(self, r: Round, members: Collection[Member], *, sampled: bool) -> None:
        app, omega, fair = r.app, r.app.spec.cpu, r.app.fair_shares()
        free = self._affordable(app.ledger.free)
        host_used = _UseByHost(app)
        growing: dict[MemberKey, tuple[Wish, float]] = {}
        # Who may be left some headroom, of what those that grow leave.
        content: list[Member] = []
        for member in members:
            ordered, demand = member.limit, member.demand
            if member.state != "managed" or ordered is None:
                continue
            limit = ordered
            # An alarm that its agent has answered is about the limit before.
            if sampled and member.drawn_from is not None:
                if demand.dry:
                    limit = member.drawn_from
                    content.append(member)
                member.drawn_from = None
            # What is seen while a raise is under way belongs to the limit before it.  A cut under
            # way that hurts already, though, is better taken back at once; and when it was not even
            # written yet, it is the limit before it that hurts.
            entry = app.ledger[member.key]
            if entry.pending:
                if not (sampled and _cutting(member) and demand.throttled()):
                    continue
                if demand.latest is not None and demand.latest.rev != member.last_rev:
                    limit = max(limit, self._affordable(entry.held))
            floor, ceiling, _ = app.claim(member)
            fair_share = fair[member.key]
            seen = Seen(
                *(limit, floor, ceiling, fair_share, omega, free, demand, sampled),
                limit_millicores(member.info.original) or fair_share,
                member.host_milli,
                partial(host_used, member.key.host),
            )
            wish = member.rule.decide(seen, r.now)
            if wish is None:
                if sampled:
                    content.append(member)
                else:
                    app.due.put(member.key, member.rule.quiet_until(seen, r.now))
                continue
            app.due.put(member.key, r.now)
            target = max(floor, min(ceiling, wish.target))
            if target < ordered <= limit:
                app.unmet.pop(member.key, None)
                self._order(r, member, target, wish)
                free = self._affordable(app.ledger.free)
            elif target > max(limit, ordered) or (wish.throttled and limit >= ordered):
                growing[member.key] = (wish, r.now + UNMET_S)
        if growing:
            self._grow(r, growing)
        for member in content:
            self._headroom.offer(r, member)

    # ---- growth --------------------------------------------------------------------

    def _grow(self, r: Round, wishes: Mapping[MemberKey, tuple[Wish, float]]) -> None:
        """Meet wishes from what is free; each stands until its time (monotonic s) if it is not met."""
        app = r.app
        claims: dict[MemberKey, Claim] = {}
        for key, (wish, _) in wishes.items():
            member = app.members.get(key)
            if member and member.limit is not None and (_cutting(member) or not app.ledger[key].pending):
                _, ceiling, weight = app.claim(member)
                claims[key] = Claim(member.limit, max(member.limit, min(ceiling, wish.target)), weight)
        if not claims or r.now < self._grace_until:
            return
        budget = self._affordable(app.ledger.free) + sum(claim.floor for claim in claims.values())
        for key, amount in max_min(budget, claims).items():
            member, claim, (wish, until) = app.members[key], claims[key], wishes[key]
            amount = self._within_bound(r, member, amount)
            if amount - claim.floor >= min(_least_growth(claim.floor), claim.want - claim.floor) > 0:
                self._order(r, member, amount, wish)
            elif wish.throttled:
                r.note(member, wish)
            if amount < claim.want:
                app.unmet[key] = (wish, until)
        self._contention.share(r)

    # ---- newcomers -----------------------------------------------------------------

    def _admit(self, r: Round) -> None:
        """First quota: what it asked for or its fair share, whichever is smaller, never below its floor."""
        app, now = r.app, r.now
        if not app.newcomers or now < self._grace_until:
            return
        waiting = [
            m
            for m in app.newcomers.values()
            if m.state == "new" and m.key not in app.ledger and m.retry_at <= now and r.admits(m)
        ]
        if not waiting:
            return
        fair = app.fair_shares()
        lacking = 0
        late: set[str] = set()
        for member in waiting:
            if member.key.host in late:
                continue
            floor = app.floor(member)
            asked = limit_millicores(member.info.original)
            first = max(floor, fair[member.key] if asked is None else min(asked, fair[member.key]))
            free = self._affordable(app.ledger.free)
            if free >= floor:
                first = min(first, free)
                if self._within_bound(r, member, first) < first:
                    late.add(member.key.host)
                    continue  # it comes again when the bound is on disk
                asked_text = "no limit" if asked is None else f"{asked / 1000:g} cores"
                cause = f"new; it came with {asked_text}"
                numbers = {"fair_cores": fair[member.key] / 1000, "free_cores": free / 1000}
                self._order(r, member, first, Wish(first, "newcomer", cause, numbers))
            else:
                left = f"{app.spec.name} has {free / 1000:g} cores left"
                member.problem = f"no room: {left}, its floor is {floor / 1000:g}"
                lacking += first
        if lacking > 0 and now - app.shared_at >= SHARE_EVERY_S:
            self._contention.collect(r, lacking, 0, "a newcomer needs room")

    # ---- orders --------------------------------------------------------------------

    def _order(self, r: Round, member: Member, target: int, wish: Wish) -> None:
        before, wanted = member.limit, target
        aligned, refill = True, ALIGNED_REFILL
        if before is None:
            aligned = False  # nobody could have counted on what was there before us
        else:
            # Kernels without a burst (K8) hold less than was ordered: an order may have to pay for it again.
            raising = target > before
            target = min(target, self._affordable(r.app.ledger[member.key].counted + r.app.ledger.free))
            if raising and target <= before:
                return
        if before is not None and target > before:
            target, aligned, refill = self._within_refills(r, member, before, target)
            if target < wanted and target - before < _least_growth(before):
                return
        r.app.refills.expect(member.key, refill)
        r.app.counted.add(r.app.ledger.counted, r.now)
        member.limits.add(before or 0, r.now)
        # Who gives to others, or rests, leaves it all to them.
        lends = before is not None and (target > before or wish.rule == "shrink")
        headroom = self._headroom.beside(r, member, target) if lends else 0
        rev = self._headroom.number(member, headroom)
        r.app.ledger.order(member.key, self.charge(target), rev, headroom)
        if before is None or target > before:
            member.raised_by = rev
        member.limit = target
        r.out.append(SetLimit(*member.key, rev, target, self.charge(target) - target, aligned, headroom))
        r.record(member, "cpu", wish, before, target)

    def _within_bound(self, r: Round, member: Member, target: int) -> int:
        """How far it may go before more is on disk for its host; the rest is asked for."""
        ledger, host = r.app.ledger, member.key.host
        held = ledger[member.key].counted if member.key in ledger else 0
        most = held + r.app.room(host).cpu
        if self.charge(target) <= most:
            return target
        r.secure(host, Bound(self.charge(target) - held, 0))
        return max(member.limit or 0, self._affordable(most))

    def _within_refills(self, r: Round, member: Member, before: int, target: int) -> tuple[int, bool, int]:
        """How far a raise may go now, whether its write must wait for a boundary, and what it hands out.

        A write hands out one fresh quota beside those the periods bring (K3): what was used of the period
        before it, at most the old quota, comes on top.  So the use in a window is at most the limits in it
        plus that.  Both Ω and the container's own ceiling must hold this sum, within the tolerance, for
        windows that begin before this write (with the limits of then) and after it.  At a boundary a write
        finds next to nothing used; what writes before it let through comes off the target until it is out of
        the window.  Cuts, which nobody waits for, are always put at a boundary.
        """
        app, now = r.app, r.now
        own = (1 + REFILL_TOLERANCE) * app.claim(member).want - member.refilled.total(now)
        own -= app.refills.expected(member.key)
        pool = (1 + REFILL_TOLERANCE) * app.spec.cpu - app.refills.total(now)
        others = app.ledger.counted - app.ledger[member.key].counted
        target = min(target, max(before, int(min(own, self._affordable(pool - others)))))
        used = ceil(before * member.info.in_force.period_usec / 1e6)
        if member.limits.peak(now) + used <= own and app.counted.peak(now) + used <= pool:
            at_once = int(min(own - used, self._affordable(pool - others - used)))
            # Some relief now is better than all of it a period later: the rest follows if it is needed.
            if at_once >= min(target, RELIEF * before):
                return min(target, at_once), False, used
        return target, True, ALIGNED_REFILL

    def _failed(self, r: Round, member: Member, ack: Ack) -> None:
        """The write did not do what was asked: nothing of it may be believed, and nobody else is touched."""
        limit = limit_millicores(ack.in_force)
        asked = member.limit
        member.limit = limit
        if member.state == "new" or limit is None:
            r.app.ledger.forget(member.key)
            r.app.unmet.pop(member.key, None)
            member.state, member.limit = "new", None
            member.retry_at = r.now + RETRY_S
            r.app.look_at(member)
        r.record(member, "cpu", Wish(asked or 0, "refused", ack.error), asked, limit)

    def _held(self, app: App, member: Member, ack: Ack) -> int:
        held = charge_millicores(ack.in_force)
        return app.ledger[member.key].counted if held is None else held

    def charge(self, limit: int) -> int:
        """What a limit takes from the pool: the quota and its burst (K8)."""
        return limit + int(limit * self._s.burst)

    def _affordable(self, free: float) -> int:
        return int(free / (1 + self._s.burst))


class _UseByHost:
    """Millicores that the application's containers use on a host; only rules that ask pay for it."""

    __slots__ = ("_app", "_sums")

    def __init__(self, app: App) -> None:
        self._app = app
        self._sums: dict[str, float] | None = None

    def __call__(self, host: str) -> float:
        if self._sums is None:
            self._sums = {}
            for key, member in self._app.members.items():
                self._sums[key.host] = self._sums.get(key.host, 0.0) + member.demand.used()
        return self._sums.get(host, 0.0)


def _least_growth(limit: int) -> int:
    return max(LEAST_GROWTH_MILLI, int(LEAST_GROWTH * limit))


def _cutting(member: Member) -> bool:
    """Whether its last order lowered the limit."""
    return member.raised_by != member.last_rev
