"""Memory limits on their way into the kernel: raised at once, cut aside, acknowledged."""

import asyncio
import functools
import time
from collections.abc import Callable

import structlog

from escra_agent.caps import NOT_OURS, Refusal, margin_bytes
from escra_agent.errors import CgroupGone
from escra_agent.gate import Gate
from escra_agent.memorycut import Cut, Cutter, Done, above
from escra_agent.tracked import Tracked, TrackedMemory
from escra_common.errors import EscraError
from escra_common.messages import (
    MemoryAck,
    MemoryApplied,
    MemoryDrawn,
    MemoryLimit,
    MemoryNeed,
    MemoryOrder,
    Message,
)

log = structlog.get_logger()


class MemoryWriter:
    """``writes`` counts the limits written.  Nothing here waits for the kernel to free memory.

    ``settled`` is called when an order has been carried out, before it is acknowledged.
    """

    def __init__(
        self,
        cutter: Cutter,
        send: Callable[[Message], None],
        settled: Callable[[Tracked, TrackedMemory], None],
        gate: Gate,
    ) -> None:
        self._cutter = cutter
        self._gate = gate
        self._send = send
        self._settled = settled
        self.writes = 0

    def obey(self, tracked: Tracked, memory: TrackedMemory, order: MemoryOrder) -> None:
        plan, asked = memory.plan, memory.plan.asked
        if not tracked.ours or memory.problem:
            self._gate.say(tracked, NOT_OURS)
            return
        if order.rev <= plan.rev:
            return
        if (refusal := self._gate.memory(tracked, order, time.monotonic())) is not None:
            self._refuse(tracked, memory, order, refusal)
            return
        plan.take(order, self._gate.headroom_bytes(tracked, order))
        limit = plan.shape.limit(order.max_bytes, plan.used_bytes, plan.growth(time.monotonic()))
        before = memory.group.read_limit()
        if above(before, limit):
            lower = above(before, MemoryLimit(order.max_bytes))
            margin = margin_bytes(order.margin_bytes, plan.needed_bytes) if lower else 0
            self.cut(tracked, memory, order.max_bytes, margin, ordered=True)
            return
        error, answer_s = "", 0.0
        try:
            self.raise_limit(memory, limit)
        except CgroupGone:
            raise
        except EscraError as refused:
            error = str(refused)
        else:
            answer_s = time.monotonic() - asked.since if asked and not plan.asked else 0.0
        done = Done(memory.group.read_limit(), memory.group.needed_bytes(), 0, error, made=not error)
        self._conclude(tracked, memory, done, answer_s)

    def draw(self, tracked: Tracked, memory: TrackedMemory, need: MemoryNeed) -> bool:
        """Whether the need was met out of the headroom of the last order, and the controller told so."""
        plan = memory.plan
        if memory.cuts or (ceiling_bytes := plan.draw()) is None:
            return False
        limit = plan.shape.limit(ceiling_bytes, plan.used_bytes, plan.growth(time.monotonic()))
        try:
            self.raise_limit(memory, limit)
        except CgroupGone:
            raise
        except EscraError:
            return False  # then the controller hears of it
        plan.drew(memory.group.read_limit())
        assert plan.wanted is not None
        answer_usec = max(0, time.monotonic_ns() // 1000 - need.seen_usec)
        self._send(MemoryDrawn(need, plan.rev, plan.wanted, answer_usec))
        return True

    def _refuse(self, tracked: Tracked, memory: TrackedMemory, order: MemoryOrder, refusal: Refusal) -> None:
        memory.plan.refuse(order)
        self._gate.say(tracked, refusal)
        in_force = memory.plan.wanted or memory.last.limit
        needed = memory.plan.needed_bytes
        ack = MemoryAck(tracked.key, order.rev, in_force, needed, refusal.text[:1000])
        self._send(MemoryApplied([ack]))

    def raise_limit(self, memory: TrackedMemory, limit: MemoryLimit) -> None:
        """No part of ``limit`` is below what is in use."""
        before = memory.group.writes
        with self._cutter.writing:
            memory.plan.wrote(memory.group.raise_limit(limit))
        self.writes += memory.group.writes - before

    def cut(
        self, tracked: Tracked, memory: TrackedMemory, max_bytes: int, margin_bytes: int, *, ordered: bool
    ) -> None:
        """Unless ``ordered``, the controller only hears of it when the limit ends up as another one."""
        plan = memory.plan
        growth, whole = plan.growth(time.monotonic()), plan.wanted is None
        cut = Cut(memory.group, plan, plan.turn, max_bytes, margin_bytes, growth, whole)
        memory.cuts += 1
        self._cutter.cut(cut, functools.partial(self._done, tracked, memory, cut.turn, ordered))

    def put_high(self, tracked: Tracked, memory: TrackedMemory, limit: MemoryLimit) -> None:
        """The same limit with another memory.high, which may be below what is in use (K12)."""
        assert limit.max_bytes is not None
        if (limit.high_bytes or 0) >= memory.plan.used_bytes:
            self.raise_limit(memory, limit)
        else:
            self.cut(tracked, memory, limit.max_bytes, 0, ordered=False)

    def _done(
        self,
        tracked: Tracked,
        memory: TrackedMemory,
        turn: int,
        ordered: bool,
        future: "asyncio.Future[Done]",
    ) -> None:
        memory.cuts -= 1
        if future.cancelled():
            return
        try:
            done = future.result()
        except CgroupGone:
            return  # The tick finds that out, too, and tells.
        except (EscraError, OSError) as error:
            log.warning("memory not cut", container=tracked.candidate.name, reason=str(error))
            done = Done(memory.group.read_limit(), memory.plan.needed_bytes, 0, str(error), made=False)
        self.writes += done.writes
        before, in_force = memory.plan.wanted, done.in_force
        if in_force is None or memory.plan.turn != turn:
            return  # overtaken, perhaps after its last write: the newer order has said what is in force
        if ordered or before is None or before.max_bytes != in_force.max_bytes:
            self._conclude(tracked, memory, done)
        else:
            memory.plan.wrote(in_force)

    def _conclude(self, tracked: Tracked, memory: TrackedMemory, done: Done, answer_s: float = 0.0) -> None:
        """Stand for what is in force from now on, and say so; what is not managed stays so if it failed."""
        plan, in_force = memory.plan, done.in_force
        assert in_force is not None
        if done.made or plan.wanted is not None:
            plan.wrote(in_force)
            self._settled(tracked, memory)
        error, answer_usec = done.error[:1000], round(answer_s * 1e6)
        ack = MemoryAck(tracked.key, plan.rev, in_force, done.needed_bytes, error, answer_usec)
        self._send(MemoryApplied([ack]))
