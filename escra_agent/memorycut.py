"""Lowering memory limits, which may take seconds: in one thread, never in the event loop (K12, K15)."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from escra_agent.errors import LimitRejected
from escra_agent.memorygroup import MemoryGroup, describe_memory
from escra_agent.memoryplan import MemoryPlan
from escra_agent.memoryshape import LEAST_BAND_BYTES, Shape
from escra_common.messages import MemoryLimit


@dataclass(frozen=True, slots=True)
class Cut:
    """To ``max_bytes``, or to what is needed plus ``margin_bytes`` where that is more, unless ``whole``.

    Wanted in that ``turn`` of the plan.
    """

    group: MemoryGroup
    plan: MemoryPlan
    turn: int
    max_bytes: int
    margin_bytes: int
    growth: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What the kernel held after a cut, None when the cut was overtaken; ``error`` is why it is not lower.

    ``made`` is false when a cut that had to be whole was not begun.
    """

    in_force: MemoryLimit | None
    needed_bytes: int
    writes: int
    error: str = ""
    made: bool = True


class Cutter:
    """One thread with a queue.  ``writing`` is held for every write that a cut must not undo."""

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "memory")

    def cut(self, cut: Cut, done: Callable[["asyncio.Future[Done]"], None]) -> None:
        """``done`` is called in the loop."""
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, carry_out, cut, self.writing).add_done_callback(done)

    async def give_back(self, group: MemoryGroup, original: MemoryLimit) -> tuple[MemoryLimit, str]:
        """``give_back`` after the cuts that are under way."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _give_back_aside, group, original)

    async def close(self) -> None:
        """Wait for what is under way; what is queued is left undone."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


def carry_out(cut: Cut, writing: threading.Lock) -> Done:
    """With descriptors of its own: those of the loop may be closed, and their numbers reused, at any time."""
    if cut.plan.turn != cut.turn:
        return Done(None, 0, 0)  # overtaken while others were cut
    group = cut.group.again()
    try:
        needed, before = group.needed_bytes(), group.read_limit()
        limit = cut.plan.shape.limit(max(cut.max_bytes, needed + cut.margin_bytes), needed, cut.growth)
        if cut.whole and (limit.max_bytes or 0) > cut.max_bytes:
            return Done(before, needed, 0, made=False)
        if above(limit, before) or limit == before:
            return Done(before, needed, 0)
        error = _attempt(group.make_room, limit)
        with writing:
            if cut.plan.turn != cut.turn:
                # Overtaken: on v1 making room has lowered the limit, perhaps below the newer one.
                if cut.plan.wanted is not None:
                    group.raise_limit(cut.plan.wanted)
                return Done(None, needed, group.writes)
            error = error or _attempt(group.lower_limit, limit)
            if not above(before, MemoryLimit(cut.max_bytes)):
                error = ""  # it was no more than wanted before; only whose it is cannot be seen (told_apart)
        return Done(group.read_limit(), group.needed_bytes(), group.writes, error)
    finally:
        group.close()


def give_back(group: MemoryGroup, original: MemoryLimit) -> tuple[MemoryLimit, str]:
    """Put ``original`` in force, and the OOM killer back to work.  May take seconds.

    Nobody is killed for it: where more is in use, the limit comes down as far as that allows.
    Returns what is in force then, and why it is not the original, or "".
    """
    if group.pulse().armed:
        group.disarm()
    before = group.read_limit()
    if not above(before, original):
        return group.raise_limit(original), ""
    error = _lower(group, original)
    if error:
        least = _as_low_as_fits(original, group)
        if above(group.read_limit(), least):
            _lower(group, least)
        error = f"{error}; it has {describe_memory(group.read_limit())} now"
    return group.read_limit(), error


def stand_down(group: MemoryGroup, original: MemoryLimit) -> None:
    """No task waits for an agent that is not there: the kernel kills at the limit as it always does.

    On v1 the OOM killer works again (K11), on v2 nobody is throttled below the limit that we left (K13).
    """
    if group.pulse().armed:
        group.disarm()
    limit = group.read_limit()
    if group.banded and limit != original and limit.high_bytes is not None:
        group.raise_limit(MemoryLimit(limit.max_bytes, limit.max_bytes, limit.swap_bytes))


def above(one: MemoryLimit, other: MemoryLimit) -> bool:
    if one.max_bytes is None or other.max_bytes is None:
        return one.max_bytes is None and other.max_bytes is not None
    return one.max_bytes > other.max_bytes


def _give_back_aside(group: MemoryGroup, original: MemoryLimit) -> tuple[MemoryLimit, str]:
    own = group.again()
    try:
        return give_back(own, original)
    finally:
        own.close()


def _lower(group: MemoryGroup, limit: MemoryLimit) -> str:
    return _attempt(group.make_room, limit) or _attempt(group.lower_limit, limit)


def _attempt(write: Callable[[MemoryLimit], object], limit: MemoryLimit) -> str:
    """Why the kernel refused, or ""."""
    try:
        write(limit)
    except LimitRejected as error:
        return str(error)
    return ""


def _as_low_as_fits(original: MemoryLimit, group: MemoryGroup) -> MemoryLimit:
    least = group.needed_bytes() + LEAST_BAND_BYTES
    if not group.banded:
        return Shape(original, banded=False).limit(least, 0)
    high = None if original.high_bytes is None else max(least, original.high_bytes)
    return MemoryLimit(least, high, original.swap_bytes)
