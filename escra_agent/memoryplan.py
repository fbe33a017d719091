"""What the memory limit of one container should be, and whether it needs more now.  Pure.

File cache is not need: what can be dropped is left out, but to know how much that is costs a look
at memory.stat (K22).  So a look is asked for only near the limit, and seldom enough that a
container that reads files costs little, and does not grow.
"""

from dataclasses import dataclass, replace

from escra_agent.growth import Growth
from escra_agent.memoryshape import MOST_BAND_SHARE, Shape, band_bytes
from escra_common.messages import MemoryLimit, MemoryNeed, MemoryOrder
from escra_common.units import MAX_BYTES

# So far ahead a tick looks: itself, the next one, and the reaction.
AHEAD_S = 0.15
# The cache is looked at again when it may have been used up, at the rate of a fast allocator.
LOOK_BYTES_PER_S = 1 << 30
LOOK_S = 0.1
OLD_LOOK_S = 4.0
# When the use moved by so much since the last look, what moved may be cache: files were read, or given up.
MUCH_BYTES = 8 << 20
# Who would come so near to the limit within this time, at the growth seen, is looked at between two ticks.
CLIMB_S = 0.5
RESEND_S = 0.2
# So long a task may wait in the kernel for an answer.
ANSWER_S = 5.0
# A refused container asks again after this, should it still be short then.
ASK_AGAIN_S = 1.0
NO_ANSWER = "the controller did not answer"


@dataclass(frozen=True, slots=True)
class Asked:
    """A need that is not answered yet; times in monotonic seconds."""

    serial: int
    limit_bytes: int
    paused: bool
    since: float
    sent: float


@dataclass(frozen=True, slots=True)
class Denied:
    reason: str
    paused: bool
    since: float


class MemoryPlan:
    """``wanted`` is the limit we stand for, None while the memory is not managed.

    ``turn`` changes with every order: what was begun in another turn is out of date.
    ``saw``, and ``looked`` where ``wants_look`` says so, come before ``need``.
    """

    def __init__(self, key: int, shape: Shape, held: MemoryLimit | None) -> None:
        self._key = key
        self.shape = shape
        self.wanted = held
        self.rev = 0
        self.turn = 0
        # Up to here the limit may go without an order; 0: not at all.
        self.ceiling_bytes = 0
        self.asked: Asked | None = None
        self.denied: Denied | None = None
        self.used_bytes = 0
        self.cache_bytes = 0
        self._serial = 0
        self._looked_at = float("-inf")
        self._looked_at_use = 0
        self._use = Growth()
        self._need = Growth()

    # ---- orders --------------------------------------------------------------------

    def new_controller(self) -> None:
        """Another connection, another order book."""
        self.rev = self.ceiling_bytes = 0
        self.asked = None

    def let_go(self) -> None:
        """Not managed any more; whatever is under way is void."""
        self.wanted = self.asked = self.denied = None
        self.rev = self.ceiling_bytes = 0
        self.turn += 1

    def take(self, order: MemoryOrder, headroom_bytes: int = 0) -> bool:
        """Whether it is to be carried out, with so much of its headroom; an old one is not."""
        if order.rev <= self.rev:
            return False
        self.rev = order.rev
        self.turn += 1
        self.ceiling_bytes = order.max_bytes + headroom_bytes if headroom_bytes else 0
        # No less than there is: the answer, even where a cut that ended early has made it come to nothing.
        if self.wanted is None or order.max_bytes >= (self.wanted.max_bytes or 0):
            self.asked = self.denied = None
        return True

    def refuse(self, order: MemoryOrder) -> bool:
        """It is not carried out, and voids those before it; False when it is out of date itself."""
        if order.rev <= self.rev:
            return False
        self.rev, self.ceiling_bytes = order.rev, 0
        self.turn += 1
        return True

    def draw(self) -> int | None:
        """The limit that meets the need just now without an order, once; None when it must be asked for."""
        ceiling_bytes, self.ceiling_bytes = self.ceiling_bytes, 0
        if self.wanted is None or ceiling_bytes <= (self.wanted.max_bytes or ceiling_bytes):
            return None
        return ceiling_bytes

    def drew(self, in_force: MemoryLimit) -> None:
        """What the kernel held after that: the need that is open is met."""
        self.wanted = in_force
        self.asked = self.denied = None

    def deny(self, serial: int, reason: str, now: float) -> bool:
        """Whether it answers the question that is open."""
        if self.asked is None or self.asked.serial != serial:
            return False
        self.denied = Denied(reason, self.asked.paused, now)
        self.asked = None
        return True

    def wrote(self, in_force: MemoryLimit) -> None:
        """What the kernel held after our write."""
        self.wanted = in_force

    def repair(self, found: MemoryLimit) -> MemoryLimit | None:
        """The limit to write again because somebody else changed it; None when all is well."""
        return None if found == self.wanted else self.wanted and self.shape.told_apart(self.wanted)

    # ---- what is seen --------------------------------------------------------------

    def saw(self, used_bytes: int, now: float) -> None:
        self.used_bytes = used_bytes
        self._use.saw(used_bytes, now)

    def looked(self, cache_bytes: int, now: float) -> None:
        self.cache_bytes = cache_bytes
        self._looked_at, self._looked_at_use = now, self.used_bytes
        self._need.saw(self.needed_bytes, now)

    def look_is_old(self, now: float) -> bool:
        """Whether the cache may be another by now: others that need memory count on what is told of it."""
        moved = abs(self.used_bytes - self._looked_at_use)
        return moved >= MUCH_BYTES or (moved > 0 and now - self._looked_at >= OLD_LOOK_S)

    @property
    def needed_bytes(self) -> int:
        return max(0, self.used_bytes - self.cache_bytes)

    def growth(self, now: float) -> int:
        """Of what is needed: seen directly, or its share in the growth of all that is used."""
        return max(self._need.rate(now), self._use.rate_of(self.needed_bytes, now))

    def wants_look(self, now: float) -> bool:
        """Whether use comes so near to the limit that it matters how much of it is cache."""
        if self.wanted is None or self.wanted.max_bytes is None:
            return False
        limit_bytes = self.wanted.max_bytes
        soon = self.used_bytes + self._use.rate(now) * AHEAD_S
        # This is asked of everybody in every tick, and most are far from their limits.
        if soon < limit_bytes * (1 - MOST_BAND_SHARE) or soon <= self._line(limit_bytes, now):
            return False
        return now - self._looked_at >= min(LOOK_S, self.cache_bytes / LOOK_BYTES_PER_S)

    def climbs(self, now: float) -> bool:
        """Whether it may need more before the next tick."""
        if self.wanted is None or self.wanted.max_bytes is None or self.denied is not None:
            return False
        rate = self._use.rate(now)
        return rate > 0 and self.used_bytes + rate * CLIMB_S > self._line(self.wanted.max_bytes, now)

    # ---- needs ---------------------------------------------------------------------

    def need(self, now: float, *, paused: bool, seen_usec: int) -> MemoryNeed | None:
        """The message to send now, if any: a new need, or the open one again."""
        if self.wanted is None or self.wanted.max_bytes is None:
            return None
        limit_bytes, asked = self.wanted.max_bytes, self.asked
        if asked is not None and now - asked.since >= ANSWER_S:
            self.deny(asked.serial, NO_ANSWER, now)
            return None
        looked = self._looked_at == now
        if looked and not (paused or self._short(limit_bytes, now)):
            self.asked = None
            return None
        if asked is None:
            if not (paused or looked) or self._refused(now, paused):
                return None
            self._serial += 1
            asked = Asked(self._serial, limit_bytes, paused, now, now)
        elif now - asked.sent >= RESEND_S or (paused and not asked.paused):
            asked = replace(asked, paused=paused, sent=now)
        else:
            return None
        self.asked = asked
        return MemoryNeed(
            self._key,
            asked.serial,
            asked.limit_bytes,
            self.needed_bytes,
            min(MAX_BYTES, self.growth(now)),
            paused,
            seen_usec,
        )

    def _short(self, limit_bytes: int, now: float) -> bool:
        return self.needed_bytes + self.growth(now) * AHEAD_S > self._line(limit_bytes, now)

    def _line(self, limit_bytes: int, now: float) -> int:
        """Above this the next moment may be too late."""
        return limit_bytes - band_bytes(limit_bytes, self.growth(now))

    def _refused(self, now: float, paused: bool) -> bool:
        denied = self.denied
        if denied is None or (paused and not denied.paused):
            return False
        return now - denied.since < ASK_AGAIN_S

    def quiet(self, now: float) -> bool:
        """Whether time alone changes nothing here, and the cache is known."""
        waits = self.asked is not None or self.denied is not None
        looked = self.used_bytes == self._looked_at_use
        return looked and not waits and self._use.over(now) and self._need.over(now)

    # ---- a denial, and its end -----------------------------------------------------

    def recover(self, now: float, *, paused: bool) -> None:
        """Forget the denial once what it was about is over.

        v2: not as soon as less is in use than it takes to ask.  Who was held back in a wide band may have no
        more than that, and would be held back there for ever, asking and being refused.
        """
        if self.denied is None or self.wanted is None or self.wanted.max_bytes is None:
            return
        limit_bytes, old = self.wanted.max_bytes, now - self.denied.since >= ASK_AGAIN_S
        if self.shape.banded:
            over = old and self.used_bytes < limit_bytes - band_bytes(limit_bytes, 0)
        else:
            over = not paused if self.denied.paused else old
        if over:
            self.denied = None

    @property
    def wants_arms(self) -> bool:
        """v1: tasks are to wait at the limit rather than be killed; not when waiting is of no use."""
        return self.wanted is not None and not (self.denied and self.denied.paused)

    def band(self, now: float, *, helped: bool) -> MemoryLimit | None:
        """v2: the same limit with memory.high elsewhere, when it should move; None when it may stay.

        Small steps are not worth a write.  After a denial, and while nobody helps, it is the limit
        itself: the kernel shall kill at the limit, not throttle for ever below it (K13).
        """
        if not self.shape.banded or self.wanted is None or self.wanted.max_bytes is None:
            return None
        limit_bytes, present = self.wanted.max_bytes, self.wanted.high_bytes
        if self.denied or not helped:
            at_the_limit = MemoryLimit(limit_bytes, limit_bytes, self.wanted.swap_bytes)
            return None if present == limit_bytes else at_the_limit
        if self.asked is not None:
            return None  # it holds back who grows until the answer comes
        fitting = self.shape.limit(limit_bytes, self.needed_bytes, self.growth(now))
        assert fitting.high_bytes is not None
        band, had = limit_bytes - fitting.high_bytes, limit_bytes - (present or 0)
        return fitting if present is None or band > 2 * had or 2 * band < had else None
