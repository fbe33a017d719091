"""The work of each tick: read every container, repair what others wrote, report what matters;
and the orders that come back."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import structlog

from escra_agent.caps import NOT_OURS
from escra_agent.cgroupfs import Counters, describe, write_rank
from escra_agent.errors import CgroupGone
from escra_agent.parts import Part, Parts
from escra_agent.quotas import told_apart
from escra_agent.roster import Roster
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError
from escra_common.messages import (
    MAX_ITEMS,
    Ack,
    Applied,
    CpuLimit,
    CpuOrder,
    MemoryAck,
    MemoryApplied,
    Message,
    Release,
    Sample,
    Samples,
    SetLimits,
)
from escra_common.seldom import Seldom
from escra_common.units import least_millicores, quota_usec

log = structlog.get_logger()

# A container that cannot be read is looked at in every tick, but spoken of only so often.
TROUBLE_EVERY_S = 60.0
# Who uses this part of its quota may soon want more of it.
BRISK = 0.5
# From this part of its ceiling on a raise waits for the boundary: what is given late in a period, and the
# whole of the next ten, would be more than the ceiling in the second from there.
NEAR_CEILING = 0.9

# How finely the end of a period is looked for; with many to look at the turns come further apart, so that
# their cost has a bound.
BOUNDARY_POLL_S = 0.001
PER_CONTAINER_S = 0.0001
# An agent that ends waits so long for the periods under way: the usual one and a late timer.
FINISH_S = 0.12


class Keeper:
    """``send`` takes messages for the controller, ``parts`` notes for the next agent.

    Everything here is short, and only ``release`` and ``finish`` wait.
    """

    def __init__(self, roster: Roster, send: Callable[[Message], None], parts: Parts | None = None) -> None:
        self._roster = roster
        self._send = send
        self._parts = parts
        self._seldom = Seldom(TROUBLE_EVERY_S)
        self.gone: list[Tracked] = []
        self.brisk: list[Tracked] = []
        self.drift_repairs = 0
        self.writes = 0
        self.refill_usec = 0

    # ---- each tick -----------------------------------------------------------------

    def tick(self) -> None:
        """Containers that turn out to be gone are collected in ``gone``; the others are not held up.

        In ``brisk`` are those that used much of their quota, or were throttled.
        """
        samples: list[Sample] = []
        for tracked in self._roster.awake():
            try:
                self._visit(tracked, samples)
            except CgroupGone:
                self.gone.append(tracked)
            except (EscraError, OSError, ValueError) as error:
                if self._seldom.allows(str(tracked.key), time.monotonic()):
                    log.warning("container not read", container=tracked.candidate.name, reason=str(error))
        for start in range(0, len(samples), MAX_ITEMS):
            self._send(Samples(samples[start : start + MAX_ITEMS]))

    def _visit(self, tracked: Tracked, samples: list[Sample]) -> None:
        last = tracked.last
        look = tracked.suspect or not tracked.watched
        counters = tracked.cgroup.read(None if look else last.limit, fresh=tracked.suspect)
        tracked.idle = counters.usage_usec == last.usage_usec
        if not (tracked.idle and counters.nr_periods == last.nr_periods):
            tracked.moved_usec = counters.time_usec
        if not tracked.idle and _brisk(last, counters):
            self.brisk.append(tracked)
        tracked.last = counters
        tracked.plan.saw(counters)
        if look:
            if (limit := tracked.plan.repair(counters.limit, tracked.original)) is not None:
                self._repair(tracked, counters.limit, limit)
            tracked.suspect = False
        samples += [self._sample(tracked, c) for c in tracked.sampler.judge(counters)]

    def _repair(self, tracked: Tracked, found: CpuLimit, limit: CpuLimit) -> None:
        in_force = self.write(tracked, limit)
        self.drift_repairs += 1
        if not tracked.drift_logged:
            tracked.drift_logged = True
            log.warning(
                "foreign limit repaired",
                kind="drift_repaired",
                app=tracked.candidate.labels.app,
                container=tracked.candidate.name,
                reason=f"somebody set {describe(found)}; now {describe(in_force)} again",
            )

    def alarm(self, tracked: Tracked, counters: Counters) -> bool:
        """Its quota will not do: it has what was left to us for that, and the controller hears of both.

        Whether something waits for the next boundary now.
        """
        sample = self._sample(tracked, counters, dry=True)
        reserve, limit = tracked.plan.reserve, None
        if reserve is not None and tracked.ours:
            ceiling = _near_ceiling(tracked, reserve)
            limit = tracked.plan.draw(counters, time.monotonic(), ceiling=ceiling)
        if limit is not None:
            self._write_all([(tracked, limit)])
        self._send(Samples([sample]))
        return tracked.plan.waiting is not None

    def _sample(self, tracked: Tracked, c: Counters, *, dry: bool = False) -> Sample:
        return Sample(
            tracked.key,
            c.time_usec,
            c.usage_usec,
            c.nr_periods,
            c.nr_throttled,
            c.throttled_usec,
            tracked.cgroup.writes,
            tracked.plan.obeyed_rev,
            dry,
        )

    # ---- orders --------------------------------------------------------------------

    def obey(self, orders: SetLimits) -> None:
        """Write what may be written now, in the order the kernel accepts (K9), and acknowledge it.

        Of several orders for one container the last one counts.
        """
        ready: list[tuple[Tracked, CpuLimit]] = []
        self._roster.gate.count("cpu")
        for order in {order.key: order for order in orders.orders}.values():
            tracked = self._roster.tracked.get(order.key)
            if tracked is None:
                continue
            try:
                limit = self._accept(tracked, order)
            except CgroupGone:
                self.gone.append(tracked)  # the tick tells the controller
                continue
            except EscraError as error:
                tracked.plan.rev = max(tracked.plan.rev, order.rev)
                self._send(Applied([self._refusal(tracked, error)]))
                continue
            if limit is not None:
                ready.append((tracked, limit))
        self._write_all(ready)

    def poll_boundaries(self) -> float | None:
        """Write the waiting limits whose period ended; seconds to the next turn, None when nobody waits."""
        now = time.monotonic()
        waiting = [tracked for tracked in self._roster.tracked.values() if tracked.plan.waiting is not None]
        looked_at = [tracked for tracked in waiting if tracked.plan.look_usec <= now * 1e6]
        self._write_all(list(self._due(looked_at, now)))
        looks_usec = [tracked.plan.look_usec for tracked in waiting if tracked.plan.waiting is not None]
        if not looks_usec:
            return None
        return max(BOUNDARY_POLL_S, PER_CONTAINER_S * len(looked_at), min(looks_usec) / 1e6 - now)

    def _due(self, waiting: list[Tracked], now: float) -> Iterator[tuple[Tracked, CpuLimit]]:
        for tracked in waiting:
            try:
                limit = tracked.plan.due(tracked.cgroup.read(), now)
            except CgroupGone:
                tracked.plan.waiting = None
                self.gone.append(tracked)
            except EscraError as error:
                self._send(Applied([self._refusal(tracked, error)]))
            else:
                if limit is not None:
                    yield tracked, limit

    async def release(self, order: Release) -> None:
        """CPU and memory, each acknowledged with what is in force then."""
        tracked = self._roster.tracked.get(order.key)
        if tracked is None:
            return
        error = await self._roster.release(tracked)
        self._send(Applied([Ack(order.key, order.rev, tracked.last.limit)]))
        if (memory := tracked.memory) is not None:
            needed = memory.plan.needed_bytes
            ack = MemoryAck(order.key, order.rev, memory.last.limit, needed, error[:1000])
            self._send(MemoryApplied([ack]))

    async def finish(self) -> None:
        """Nobody will look for the ends of periods: whole limits are to stay, not what is left of one.

        Where the end comes soon it is waited for: what was used before the write is handed out again (K3).
        """
        end, wait_s = time.monotonic() + FINISH_S, self.poll_boundaries()
        while wait_s is not None and time.monotonic() < end:
            await asyncio.sleep(wait_s)
            wait_s = self.poll_boundaries()
        for tracked in self._roster.tracked.values():
            tracked.plan.waiting = tracked.plan.reserve = None
            with suppress(EscraError):
                self._tidy(tracked)

    def lower(self, tracked: Tracked, cpu_milli: int) -> None:
        """Nobody gives orders any more: down to this, if it is managed and has more."""
        held = tracked.plan.stands_for
        if held is None or held.quota_usec is None or not tracked.ours:
            return
        tracked.plan.waiting = tracked.plan.reserve = None
        quota = quota_usec(max(cpu_milli, least_millicores(held.period_usec)), held.period_usec)
        if quota < held.quota_usec:
            self.write(tracked, CpuLimit(quota, held.period_usec, min(quota, held.burst_usec)))
        else:
            self._tidy(tracked)

    def _accept(self, tracked: Tracked, order: CpuOrder) -> CpuLimit | None:
        gate, now = self._roster.gate, time.monotonic()
        if not tracked.ours:
            gate.say(tracked, NOT_OURS)
            return None
        if order.rev > tracked.plan.rev and (refusal := gate.cpu(tracked, order, now)) is not None:
            tracked.plan.refuse(order)
            gate.say(tracked, refusal)
            in_force = tracked.plan.stands_for or tracked.last.limit
            self._send(Applied([Ack(tracked.key, order.rev, in_force, refusal.text[:1000])]))
            return None
        plan, headroom_milli = tracked.plan, gate.headroom_milli(tracked, order)
        if plan.stays(order, headroom_milli):
            self._send(Applied([Ack(tracked.key, order.rev, plan.stands_for or tracked.last.limit)]))
            plan.obeyed()
            return None
        idle, ceiling = tracked.idle, _near_ceiling(tracked, order)
        return plan.take(order, tracked.cgroup.read(), now, headroom_milli, idle=idle, ceiling=ceiling)

    def _write_all(self, ready: Iterable[tuple[Tracked, CpuLimit]]) -> None:
        acks: list[Ack] = []
        ranked = sorted(ready, key=lambda w: write_rank(w[0].last.limit, w[1], w[0].cgroup.depth))
        for tracked, limit in ranked:
            try:
                in_force = self.write(tracked, limit)
                plan = tracked.plan
                stands_for = plan.stands_for or in_force
                acks.append(Ack(tracked.key, plan.rev, stands_for, extra_usec=plan.extra_usec))
                plan.obeyed()
            except CgroupGone:
                self.gone.append(tracked)
            except EscraError as error:
                acks.append(self._refusal(tracked, error))
        for start in range(0, len(acks), MAX_ITEMS):
            self._send(Applied(acks[start : start + MAX_ITEMS]))

    def _tidy(self, tracked: Tracked) -> None:
        """The rest of a period is no limit for the next one, whatever became of the order."""
        if (limit := tracked.plan.left_over()) is not None:
            self.write(tracked, limit)

    def write(self, tracked: Tracked, limit: CpuLimit) -> CpuLimit:
        """Put ``limit`` in force and acknowledge nothing; what the kernel held then.  Raises EscraError."""
        before, whole = tracked.cgroup.writes, tracked.plan.whole
        left = told_apart(limit, tracked.original)
        if self._parts is not None and whole is not None:
            self._parts.note(tracked.key, Part(left, told_apart(whole, tracked.original)))
        in_force = tracked.cgroup.write_limit(left)
        tracked.plan.wrote(in_force)
        if self._parts is not None and whole is None:
            self._parts.clear(tracked.key)
        written = tracked.cgroup.writes - before
        self.writes += written
        self.refill_usec += written * (in_force.quota_usec or 0)
        return in_force

    def _refusal(self, tracked: Tracked, error: EscraError) -> Ack:
        try:
            in_force = tracked.cgroup.read_limit()
        except EscraError:
            in_force = tracked.last.limit
        # Whoever hears of it counts no headroom either.
        tracked.plan.waiting = tracked.plan.reserve = None
        if tracked.plan.wanted is not None:
            tracked.plan.wrote(in_force)
        return Ack(tracked.key, tracked.plan.rev, in_force, str(error)[:1000])


def _near_ceiling(tracked: Tracked, order: CpuOrder) -> bool:
    most = tracked.most_milli
    return most is not None and order.cpu_milli >= NEAR_CEILING * most


def _brisk(last: Counters, now: Counters) -> bool:
    """Whether one more burst like this one, or a somewhat larger one, may use up the quota."""
    quota, elapsed = now.limit.quota_usec, now.time_usec - last.time_usec
    if quota is None:
        return False
    used, allowed = (now.usage_usec - last.usage_usec) * now.limit.period_usec, quota * elapsed
    return now.nr_throttled != last.nr_throttled or used > BRISK * allowed
