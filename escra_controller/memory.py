"""What is known about the memory of one container: its limit, its use, and what it waits for."""

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta

from escra_common.messages import MemoryLevel, MemoryNeed
from escra_common.units import Size
from escra_controller.policy import Wish
from escra_controller.recent import RecentPeak

MIB = 1 << 20
# A peak of use is remembered this long: no limit is cut below it for the sake of tidiness.
KEEP_S = 30.0
# A need that would meet its limit within this time, one look of the agent, is at it.
AT_LIMIT_S = 0.1


class MemorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[memory]`` of the controller's configuration.

    A limit is kept ``margin`` (a share) and at least ``margin_min`` above use.  A grant covers the growth
    seen for ``horizon_s`` seconds, and is at least ``grant_min``.  Every ``reclaim_s`` what a container has
    not used lately comes back.  When the pool is empty others are asked to give at once, and the one in
    need waits for them at most ``ask_s``.

    With a grant goes headroom, up to ``headroom_share`` of what is then left: the agent meets the next need
    out of it by itself, without asking.  0: all needs are asked for.
    """

    margin: Annotated[float, Meta(ge=0, le=10)] = 0.1
    margin_min: Size = Size(8 << 20)
    horizon_s: Annotated[float, Meta(gt=0, le=60)] = 0.25
    grant_min: Size = Size(8 << 20)
    reclaim_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    ask_s: Annotated[float, Meta(gt=0, le=4)] = 0.5
    headroom_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.25


def at_limit(need: MemoryNeed) -> bool:
    """Whether its tasks wait at the limit, or would meet it before anybody looks again."""
    return need.paused or need.needed_bytes + need.growth * AT_LIMIT_S >= need.limit_bytes


def why_needed(need: MemoryNeed) -> str:
    return "its tasks wait for memory" if need.paused else "it is about to run out"


def need_numbers(need: MemoryNeed, free_bytes: int) -> dict[str, float]:
    """For the record of a decision."""
    return {
        "needed_mib": need.needed_bytes / MIB,
        "growth_mib_per_s": need.growth / MIB,
        "free_mib": free_bytes / MIB,
    }


@dataclass(frozen=True, slots=True)
class Waiting:
    """A need without an answer yet: ``target`` is the limit that would meet it, ``until`` its deadline."""

    need: MemoryNeed
    target: int
    until: float


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order under way, for the record: the limit before it, and why.

    ``averts``: it answers a need that would not have outlived the limit, see Memory.
    """

    before: int | None
    wish: Wish
    averts: bool = False


@dataclass(slots=True)
class Memory:
    """``limit`` in bytes is in force or ordered, None while nobody manages it.

    ``needed`` is the use as last seen, without file cache that costs nothing to drop.

    ``headroom_at`` is when an order last left its agent headroom.

    ``averted`` counts the OOMs averted since the controller began: grants read back from the kernel for a
    need whose tasks waited at the limit already, or would have met it within AT_LIMIT_S at the growth seen.
    """

    limit: int | None = None
    needed: int = 0
    level: MemoryLevel | None = None
    ordered: Ordered | None = None
    last_rev: int = 0
    releasing: bool = False
    waiting: Waiting | None = None
    answered_serial: int = 0
    averted: int = 0
    denied: tuple[float, str] | None = None
    dying_until: float = 0.0
    problem: str = ""
    retry_at: float = 0.0
    gives_from: float = 0.0
    looked_at: float = float("-inf")
    headroom_at: float = 0.0
    peaks: RecentPeak = field(default_factory=lambda: RecentPeak(KEEP_S))

    def leave(self) -> None:
        """Its host is away: who asked has been answered by the kernel."""
        self.waiting, self.answered_serial = None, 0
