"""The memory pool of an application: grants before the OOM killer comes, refusals, and newcomers.

Growth is paid from what is free; when that is not enough, all others are asked at once to give
what they do not use (memoryreclaim.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil

from escra_common.messages import MemoryAck, MemoryLevel, MemoryNeed, OomKilled
from escra_common.units import format_bytes
from escra_controller.bounds import Bound
from escra_controller.events import DenyNeed
from escra_controller.memory import KEEP_S, MemorySettings, Waiting, at_limit, need_numbers, why_needed
from escra_controller.memoryheadroom import MemoryHeadroom
from escra_controller.memoryorders import ASK_EVERY_S, MemoryOrders
from escra_controller.memoryreclaim import MemoryReclaim
from escra_controller.policy import Wish
from escra_controller.recent import RecentPeak
from escra_controller.rounds import Round
from escra_controller.state import Member, MemberKey

# What cannot grow by this much cannot be helped.  No page is larger.
LEAST_GRANT_BYTES = 64 << 10
# A refusal explains a kill that follows within this time.
EXPLAINS_S = 10.0
# A disk may take so long until more is on it.
DISK_S = 1.0
# How many more are looked at in one tick than are due when they are spread evenly over ``reclaim_s``.
LOOKS = 1.5
TICK_S = 0.1

MIB = 1 << 20


class MemoryAllocator:
    """Stateless but for its settings; the state is the application's.  ``next_rev`` numbers the orders."""

    def __init__(self, settings: MemorySettings, grace_until: float, next_rev: Callable[[], int]) -> None:
        self._s = settings
        self._grace_until = grace_until
        self._orders = MemoryOrders(settings, next_rev)
        self._reclaim = MemoryReclaim(settings, self._orders)
        self.headroom = MemoryHeadroom(settings, self._orders)

    # ---- what starts a round -------------------------------------------------------

    def needed(self, r: Round, member: Member, need: MemoryNeed) -> None:
        """A container wants more now.  What was answered already, or met meanwhile, is old news."""
        memory = member.memory
        if memory.limit is None or need.serial <= memory.answered_serial:
            return
        memory.needed = need.needed_bytes
        memory.peaks.add(need.needed_bytes, r.now)
        # The kernel rounds a limit down to whole pages.
        if need.limit_bytes <= memory.limit - LEAST_GRANT_BYTES:
            return
        until = max(r.now, self._grace_until) + self._s.ask_s
        if memory.waiting is None:
            memory.waiting = Waiting(need, self._target(_has(r, member, need), need), until)
        else:
            memory.waiting = replace(memory.waiting, need=need)
        r.app.asking[member.key] = member
        self.settle(r)

    def measured(self, r: Round, member: Member, level: MemoryLevel) -> None:
        memory = member.memory
        memory.level = level
        memory.needed = max(0, level.used_bytes - level.cache_bytes)
        memory.peaks.add(max(level.peak_bytes, level.used_bytes), r.now)

    def killed(self, r: Round, member: Member, killed: OomKilled) -> None:
        """For the record: what happened, and why no grant prevented it."""
        memory = member.memory
        # Until the next level comes, what it holds counts as on its way.
        memory.dying_until = r.now + self._s.ask_s
        # What it used before says nothing about what is left of it.
        memory.peaks = RecentPeak(KEEP_S)
        memory.peaks.add(memory.needed, r.now)
        if memory.denied and r.now - memory.denied[0] < EXPLAINS_S:
            why = f"its request was denied: {memory.denied[1]}"
        elif memory.limit is None:
            why = "its memory was not managed"
        elif memory.waiting is not None:
            why = "its request was not answered yet"
        else:
            why = "no request for memory came before it"
        tasks = f"{killed.kills} tasks" if killed.kills > 1 else "a task"
        numbers = {"kills": float(killed.kills)}
        wish = Wish(0, "oom-kill", f"the kernel killed {tasks} at {killed.cause}; {why}", numbers)
        r.record(member, "memory", wish, memory.limit, memory.limit)
        self.settle(r)

    def tick(self, r: Round) -> None:
        app = r.app
        # Those that joined together are not all due together for ever.
        most = ceil(len(app.members) * LOOKS * TICK_S / self._s.reclaim_s)
        for key in app.memory_due.take(r.now, most):
            member = app.members.get(key)
            if member is not None and r.reaches(member) and _has_memory(member):
                self._reclaim.look_at(r, member)
                app.memory_due.put(key, member.memory.looked_at + self._s.reclaim_s)
        self.settle(r)

    def acknowledged(self, r: Round, member: Member, ack: MemoryAck) -> None:
        """The kernel was read back after a write; ``settle`` is due, once for all that were."""
        memory, ledger = member.memory, r.app.memory
        held = ledger[member.key].counted if ack.in_force.max_bytes is None else ack.in_force.max_bytes
        last = ledger.acknowledge(member.key, ack.rev, held, carried_out=not ack.error)
        if last and (ordered := memory.ordered) is not None:
            memory.ordered, memory.problem = None, ack.error
            memory.needed = ack.needed_bytes
            self._orders.conclude(r, member, ack, ordered)
            if ordered.before is None and member.key in ledger:
                self.headroom.welcome(r, member, ordered.wish)

    def settle(self, r: Round) -> None:
        """Something may have become free, or time passed: needs first, then newcomers."""
        ledger = r.app.memory
        if ledger.counted > ledger.omega and not self._reclaim.under_way(r):
            self._reclaim.collect(r, ledger.counted - ledger.omega, None, "Ω was exceeded")
        asking = [
            m
            for m in r.app.asking.values()
            if m.memory.waiting is not None and m.key in ledger and r.reaches(m)
        ]
        for member in sorted(asking, key=lambda m: m.memory.waiting.until if m.memory.waiting else 0.0):
            self._answer(r, member)
        self._admit(r)

    # ---- needs ---------------------------------------------------------------------

    def _target(self, limit: int, need: MemoryNeed) -> int:
        """Enough for the growth seen over the horizon, and for the margin above what it needs."""
        return max(
            limit + self._orders.grant(need.growth),
            need.needed_bytes + self._orders.margin(need.needed_bytes),
        )

    def _answer(self, r: Round, member: Member) -> None:
        app, memory, waiting = r.app, member.memory, member.memory.waiting
        if waiting is None or memory.limit is None or r.now < self._grace_until:
            return
        limit, ceiling = _has(r, member, waiting.need), app.memory_ceiling(member)
        # What an order under way still counts above the limit is its own.
        room = app.memory.free + app.memory[member.key].counted - limit
        wanted = min(waiting.target, ceiling) - limit
        if ceiling - limit < LEAST_GRANT_BYTES:
            self._deny(r, member, f"it is at its own maximum of {format_bytes(ceiling)}")
        elif room >= min(wanted, LEAST_GRANT_BYTES):
            amount, ahead = min(wanted, self._polite(wanted, room)), int(waiting.need.growth * DISK_S)
            amount = self._within_bound(r, member, limit, amount, min(ahead, ceiling - limit - amount))
            if amount >= min(wanted, LEAST_GRANT_BYTES):
                self._grant(r, member, limit, amount)
        else:
            self._reclaim.collect(r, wanted - room, member, f"{member.info.name} needs memory")
            self._deny_unless_others_give(r, member)

    def _within_bound(self, r: Round, member: Member, limit: int, amount: int, ahead: int = 0) -> int:
        """How much of a grant may be given before more is on disk for its host; the rest is asked for.

        ``ahead`` is what it may want before a slow disk would have answered the next time.
        """
        app, host = r.app, member.key.host
        counted = app.memory[member.key].counted if member.key in app.memory else 0
        most = counted + app.room(host).memory - limit
        if amount + ahead > most:
            r.secure(host, Bound(0, limit + amount + ahead - counted))
        return min(amount, most)

    def _polite(self, wanted: int, room: int) -> int:
        """Half of what is left and no more, as long as that is a grant worth having."""
        return max(min(wanted, room // 2), min(int(self._s.grant_min), room))

    def _grant(self, r: Round, member: Member, limit: int, amount: int) -> None:
        memory = member.memory
        assert memory.waiting is not None
        need = memory.waiting.need
        self._answered(member)
        wish = Wish(limit + amount, "grow", why_needed(need), need_numbers(need, r.app.memory.free))
        headroom = self.headroom.beside(r, member, limit + amount, need.growth)
        self._orders.order(r, member, limit + amount, wish, averts=at_limit(need), headroom_bytes=headroom)

    def _deny_unless_others_give(self, r: Round, member: Member) -> None:
        waiting, now = member.memory.waiting, r.now
        soon = any(
            m.memory.dying_until > now or (m is not member and m.memory.gives_from > now) for m in r.reachable
        )
        hope = soon or self._reclaim.under_way(r)
        if waiting is not None and (now >= waiting.until or not hope):
            free = format_bytes(r.app.memory.free)
            late = " in time" if hope else ""
            self._deny(r, member, f"{r.app.spec.name} has {free} left and nobody else gave any{late}")

    def _deny(self, r: Round, member: Member, reason: str) -> None:
        memory = member.memory
        assert memory.waiting is not None
        need = memory.waiting.need
        self._answered(member)
        if need.paused:
            # What it holds is soon free: nobody else needs to be refused meanwhile.
            memory.dying_until = r.now + self._s.ask_s
        said, memory.denied = memory.denied, (r.now, reason)
        r.out.append(DenyNeed(*member.key, need.serial, reason))
        # A container that stays at its limit asks once a second.
        if said is None or said[1] != reason or r.now - said[0] > EXPLAINS_S:
            numbers = {"needed_mib": need.needed_bytes / MIB, "growth_mib_per_s": need.growth / MIB}
            r.record(member, "memory", Wish(0, "denied", reason, numbers), memory.limit, memory.limit)

    def _answered(self, member: Member) -> None:
        memory = member.memory
        assert memory.waiting is not None
        memory.answered_serial = memory.waiting.need.serial
        memory.waiting = None

    # ---- newcomers -----------------------------------------------------------------

    def _admit(self, r: Round) -> None:
        """First limit: what it came with or its fair share, the smaller; never below use and floor."""
        app, now = r.app, r.now
        if not app.newcomers or now < self._grace_until:
            return
        waiting = [
            m
            for m in app.newcomers.values()
            if m.memory_wanted
            and m.memory.limit is None
            and not m.memory.releasing
            and m.key not in app.memory
            and m.memory.retry_at <= now
            and r.admits(m)
        ]
        if not waiting:
            return
        fair = app.memory_shares()
        lacking = 0
        for member in self._within_bounds(r, waiting, fair):
            lacking += self._admit_one(r, member, fair)
        if lacking > 0:
            self._reclaim.collect(r, lacking, None, "a newcomer needs room")

    def _within_bounds(
        self, r: Round, waiting: Sequence[Member], fair: Mapping[MemberKey, int]
    ) -> list[Member]:
        """Those whose hosts may hold their first limits; the others come again when that is on disk.

        All of a host at once: no growth shall take meanwhile what was there for those that came together.
        """
        firsts: dict[str, int] = {}
        for member in waiting:
            firsts[member.key.host] = firsts.get(member.key.host, 0) + self._first(r, member, fair)[1]
        late = set()
        for host, amount in firsts.items():
            more = min(amount, r.app.memory.free)
            if more > r.app.room(host).memory:
                late.add(host)
                r.secure(host, Bound(0, more))
        return [member for member in waiting if member.key.host not in late]

    def _first(self, r: Round, member: Member, fair: Mapping[MemberKey, int]) -> tuple[int, int]:
        """The least first limit, and the one it should have."""
        app, info = r.app, member.info.memory
        assert info is not None
        use = member.memory.needed or info.needed_bytes
        asked, keeps = info.original.max_bytes, use + self._orders.margin(use)
        # One that was released grown beyond its own limit could not get that back.
        outgrown = asked is None or use >= asked
        least = max(app.memory_floor(member), keeps if outgrown else min(asked or 0, keeps))
        return least, max(least, fair[member.key] if asked is None else min(asked, fair[member.key]))

    def _admit_one(self, r: Round, member: Member, fair: Mapping[MemberKey, int]) -> int:
        """What is lacking, 0 when it was admitted."""
        app, memory, info = r.app, member.memory, member.info.memory
        assert info is not None
        use = memory.needed or info.needed_bytes
        asked, free = info.original.max_bytes, app.memory.free
        least, first = self._first(r, member, fair)
        if free < first and self._reclaim.take_back(r, first - free, "a newcomer needs room"):
            return 0  # it comes again when that is back
        if free < least:
            left = f"{app.spec.name} has {format_bytes(free)} left"
            memory.problem = f"no room for its memory: {left}, it needs {format_bytes(least)}"
            memory.retry_at = r.now + ASK_EVERY_S
            return least - free
        # Who names no limit leaves something for those that grow next.
        target = min(first, free if asked is not None else least + (free - least) // 2)
        if self._within_bound(r, member, 0, target) < target:
            return 0  # it comes again when the bound is on disk
        cause = f"new; it came with {'no limit' if asked is None else format_bytes(asked)}"
        numbers = {"fair_mib": fair[member.key] / MIB, "needed_mib": use / MIB, "free_mib": free / MIB}
        self._orders.order(r, member, target, Wish(target, "newcomer", cause, numbers))
        return 0


def _has(r: Round, member: Member, need: MemoryNeed) -> int:
    """The limit that a grant must raise: where a cut is under way that may end early, the one it asked at.

    An order for less than it has would be no answer, and there is no other to come.
    """
    return max(member.memory.limit or 0, min(need.limit_bytes, r.app.memory[member.key].counted))


def _has_memory(member: Member) -> bool:
    """Whether there is anything to take back, or will be."""
    return member.memory.limit is not None or member.memory_wanted
