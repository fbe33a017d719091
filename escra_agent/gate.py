"""Which orders are carried out: the caps, seen over all containers of the host."""

from collections.abc import Callable, Mapping

import structlog

from escra_agent.caps import TOO_FAST, Bounds, HostCaps, Refusal, Resource, total_refusal
from escra_agent.tracked import Tracked
from escra_common.messages import Appeared, CpuLimit, CpuOrder, MemoryOrder, Message
from escra_common.units import quota_millicores

log = structlog.get_logger()

# Room under the host's total is told again when it has changed by so much of the total.
WORTH_TELLING = 0.05


class Gate:
    """``tracked`` are all containers of the host; ``announce`` takes what the controller should know.

    ``count`` comes before the orders of one message, which are then judged one after the other.
    """

    def __init__(
        self, tracked: Mapping[int, Tracked], announce: Callable[[Message], None], caps: HostCaps
    ) -> None:
        self._tracked = tracked
        self._announce = announce
        self.caps = caps
        self._sums: dict[Resource, int] = {"cpu": 0, "memory": 0}

    def count(self, resource: Resource) -> None:
        if self.caps.total(resource) is not None:
            self._sums[resource] = sum(_promised(tracked, resource) for tracked in self._tracked.values())

    def cpu(self, tracked: Tracked, order: CpuOrder, now: float) -> Refusal | None:
        """Bounds are for the quota; the host's total counts the burst, too, as the controller does (K8)."""
        if not tracked.pace.take(now):
            return TOO_FAST
        present = tracked.plan.stands_for or tracked.last.limit
        quota = (
            None if present.quota_usec is None else quota_millicores(present.quota_usec, present.period_usec)
        )
        bounds = self.caps.bounds(tracked.candidate.labels, "cpu", tracked.cap_milli)
        charge = order.cpu_milli + min(order.burst_milli, order.cpu_milli)
        return bounds.refusal(order.cpu_milli, quota) or self._total(tracked, "cpu", charge)

    def memory(self, tracked: Tracked, order: MemoryOrder, now: float) -> Refusal | None:
        """Only cuts are counted: a raise is soon written, and somebody may be waiting for it."""
        memory = tracked.memory
        assert memory is not None
        present = (memory.plan.wanted or memory.last.limit).max_bytes
        if (present is None or order.max_bytes < present) and not memory.pace.take(now):
            return TOO_FAST
        bounds = self.caps.bounds(tracked.candidate.labels, "memory", memory.cap_bytes)
        return bounds.refusal(order.max_bytes, present) or self._total(tracked, "memory", order.max_bytes)

    def headroom_milli(self, tracked: Tracked, order: CpuOrder) -> int:
        """How much headroom of an order that is let through stays: all, or none where caps forbid it."""
        bounds = self.caps.bounds(tracked.candidate.labels, "cpu", tracked.cap_milli)
        return self._headroom(tracked, bounds, order.cpu_milli, order.headroom_milli)

    def headroom_bytes(self, tracked: Tracked, order: MemoryOrder) -> int:
        """The same for memory."""
        assert tracked.memory is not None
        bounds = self.caps.bounds(tracked.candidate.labels, "memory", tracked.memory.cap_bytes)
        return self._headroom(tracked, bounds, order.max_bytes, order.headroom_bytes)

    def _headroom(self, tracked: Tracked, bounds: Bounds, ordered: int, headroom: int) -> int:
        resource, most = bounds.resource, ordered + headroom
        counted = max(ordered, _promised(tracked, resource))
        more, total = max(0, most - counted), self.caps.total(resource)
        if bounds.refusal(most, ordered) or (total is not None and self._sums[resource] + more > total):
            return 0
        self._sums[resource] += more
        return headroom

    def say(self, tracked: Tracked, refusal: Refusal) -> None:
        """Once per container and cause."""
        if refusal.cause not in tracked.refusals:
            tracked.refusals.add(refusal.cause)
            log.warning(
                "order refused",
                kind="order_refused",
                app=tracked.candidate.labels.app,
                container=tracked.candidate.name,
                reason=refusal.text.removeprefix("refused: "),
            )

    def tick(self) -> None:
        """Who was refused for want of room under a total hears when there is more, or less."""
        for resource in self._sums:
            if self.caps.total(resource) is None:
                continue
            self.count(resource)
            for tracked in self._tracked.values():
                if tracked.rooms.get(resource) is not None:
                    self._tell_room(tracked, resource)

    def reload(self, caps: HostCaps) -> None:
        """From now on these; what is in force beyond them stays, until an order leads back."""
        if caps == self.caps:
            return
        self.caps = caps
        for tracked in self._tracked.values():
            tracked.caps = caps
            tracked.rooms.clear()
            self._announce(Appeared(tracked.describe()))

    def _total(self, tracked: Tracked, resource: Resource, ordered: int) -> Refusal | None:
        """An order that passes is counted at once, a cut only when the next message is judged."""
        total = self.caps.total(resource)
        if total is None:
            return None
        present = _promised(tracked, resource)
        refusal = total_refusal(resource, total, self._sums[resource] - present, ordered, present)
        if refusal is None:
            self._sums[resource] += max(0, ordered - present)
        else:
            self._tell_room(tracked, resource)
        return refusal

    def _tell_room(self, tracked: Tracked, resource: Resource) -> None:
        """A ceiling as high as the total leaves it: what cannot be had is not asked for again."""
        total = self.caps.total(resource)
        assert total is not None
        room = max(0, total - self._sums[resource]) + _promised(tracked, resource)
        told = tracked.rooms.get(resource)
        if told is None or abs(room - told) >= WORTH_TELLING * total:
            tracked.rooms[resource] = room
            self._announce(Appeared(tracked.describe()))


def _promised(tracked: Tracked, resource: Resource) -> int:
    """What it may have under a limit of ours, in force or waiting to be written; 0 when not managed."""
    if resource == "memory":
        sizes = tracked.memory.plan if tracked.memory else None
        if sizes is None or sizes.wanted is None:
            return 0
        return max(sizes.wanted.max_bytes or 0, sizes.ceiling_bytes)
    plan = tracked.plan
    reserved = plan.reserve.cpu_milli if plan.reserve else 0
    return max(_charge(plan.stands_for), _charge(plan.waiting.limit if plan.waiting else None), reserved)


def _charge(limit: CpuLimit | None) -> int:
    if limit is None or limit.quota_usec is None:
        return 0
    return quota_millicores(limit.quota_usec + limit.burst_usec, limit.period_usec)
