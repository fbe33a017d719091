"""The interface between the engine and its rules."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from escra_controller.demand import Demand

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[policy]`` of the controller's configuration.

    ``upsilon`` and ``window`` are Υ and n of the published formula, ``gamma`` and ``kappa`` its shrink
    (the paper's values are not known to us).  The rest is what section "CPU law" of the
    README puts around it.  ``headroom_share`` of what nobody holds is left to
    agents that may soon need it.
    """

    name: Literal["escra", "static", "vpa", "autopilot", "koordinator", "rubik", "autothrottle"] = "escra"
    upsilon: Annotated[float, Meta(gt=0, le=100)] = 0.8
    window: Annotated[int, Meta(ge=1, le=50)] = 1
    gamma: Share = 0.2
    kappa: Share = 0.5
    headroom: Annotated[float, Meta(ge=0, le=10)] = 0.1
    shrink_window_s: Seconds = 0.5
    shrink_every_s: Seconds = 0.3
    undo_s: Seconds = 1.0
    remember_s: Seconds = 60.0
    idle_s: Seconds = 2.0
    burst: Share = 0.0
    headroom_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.25
    # For the comparison: how often ``vpa`` and ``autopilot`` decide, if not as published, and the throttled
    # ratio that ``autothrottle`` aims at.
    period_s: Seconds | None = None
    throttle_target: Share = 0.06


class Seen(msgspec.Struct):
    """What a rule may know.  Amounts in millicores.

    ``limit`` is in force or under way, ``fair`` the weighted share of Ω, ``free`` what the pool
    has left.  ``sampled`` is true when a new interval ended just now.  ``original`` is the limit it came
    with, or its fair share; ``host`` the processors of its host (0: not known), and ``host_used`` says
    what the application's containers there use.
    """

    limit: int
    floor: int
    ceiling: int
    fair: int
    omega: int
    free: int
    demand: Demand
    sampled: bool
    original: int
    host: int = 0
    host_used: Callable[[], float] = lambda: 0.0


class Wish(msgspec.Struct, frozen=True, gc=False):
    """The limit a rule wants, and why: ``rule`` is a short stable name, ``cause`` a sentence.

    ``asks``: when the pool has not enough, others are to give.
    """

    target: int
    rule: str
    cause: str
    numbers: Mapping[str, float] = msgspec.field(default_factory=dict)
    throttled: bool = False
    asks: bool = True


class Restless:
    """A rule that may have something to say at any tick."""

    __slots__ = ()

    def quiet_until(self, seen: Seen, now: float) -> float:
        return now


class Rule(Protocol):
    def decide(self, seen: Seen, now: float) -> Wish | None:
        """What this container should have now; None leaves it as it is."""
        ...

    def quiet_until(self, seen: Seen, now: float) -> float:
        """Until when the answer stays None if no sample comes and its limit stays what it is."""
        ...
