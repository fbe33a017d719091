"""Two applications of small services, as call trees.

``shop`` is shaped like HipsterShop and TeaStore: a front end that asks many others at once.  ``media`` is
shaped like DeathStarBench's media service: chains of calls, one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.compare.wire import Tree
from tests.kernel_cgroups import KernelCgroup

# What receiving, answering and passing on a request costs, in units of work.
CALL_UNITS = 3


@dataclass(frozen=True, slots=True)
class Call:
    """``work`` units of CPU in ``service``, then each of ``stages``: calls side by side.

    ``hold_kib`` of memory are in use until all of that has been answered.
    """

    service: str
    work: int
    stages: tuple[tuple["Call", ...], ...] = ()
    hold_kib: int = 32

    def services(self) -> set[str]:
        return {self.service}.union(*(call.services() for stage in self.stages for call in stage))

    @property
    def cost(self) -> int:
        """Units of work in all of it."""
        return self.work + CALL_UNITS + sum(call.cost for stage in self.stages for call in stage)

    def scaled(self, size: float) -> Tree:
        """For the wire, with ``size`` times the work."""
        stages = [[call.scaled(size) for call in stage] for stage in self.stages]
        return self.service, max(1, round(self.work * size)), self.hold_kib, stages


@dataclass(frozen=True, slots=True)
class Design:
    """``operations`` begin at the same service; ``mix`` is how often each is asked for."""

    name: str
    operations: Mapping[str, Call]
    mix: Mapping[str, float] = field(default_factory=dict)

    @property
    def services(self) -> list[str]:
        return sorted(set().union(*(call.services() for call in self.operations.values())))

    @property
    def costs(self) -> dict[str, float]:
        return {name: call.cost for name, call in self.operations.items()}

    @property
    def entry(self) -> str:
        return next(iter(self.operations.values())).service


class Application(Protocol):
    """Something with containers that answers requests; this package asks nothing else of it."""

    design: Design

    def start(self) -> None:
        """Until it answers."""
        ...

    @property
    def entry(self) -> int:
        """The TCP port on loopback where requests go in."""
        ...

    @property
    def containers(self) -> Mapping[str, KernelCgroup]:
        """By service."""
        ...

    @property
    def parent(self) -> KernelCgroup:
        """What the containers are in."""
        ...

    def logs(self) -> Path:
        """The folder with what its processes said."""
        ...

    def stop(self) -> None: ...


_CATALOG = Call("catalog", 5)
_RECOMMENDED = Call("recommendation", 8, ((_CATALOG,),), hold_kib=128)
SHOP = Design(
    "shop",
    {
        "home": Call(
            "frontend", 8, ((_CATALOG, Call("currency", 2), Call("cart", 3)), (Call("ads", 4),)), 64
        ),
        "product": Call(
            "frontend",
            7,
            ((Call("catalog", 3), Call("currency", 3), Call("cart", 2)), (_RECOMMENDED, Call("ads", 4))),
            64,
        ),
        "basket": Call(
            "frontend", 6, ((Call("cart", 5), Call("shipping", 4), Call("currency", 3)), (_RECOMMENDED,)), 64
        ),
        "checkout": Call(
            "frontend",
            7,
            (
                (
                    Call(
                        "checkout",
                        7,
                        (
                            (Call("cart", 3), Call("catalog", 4)),
                            (Call("currency", 3), Call("shipping", 5)),
                            (Call("payment", 9),),
                            (Call("email", 8), Call("cart", 2)),
                        ),
                        128,
                    ),
                ),
            ),
            64,
        ),
    },
    {"home": 0.5, "product": 0.3, "basket": 0.12, "checkout": 0.08},
)


def _chain(*links: tuple[str, int]) -> Call:
    (service, work), *rest = links
    return Call(service, work, ((_chain(*rest),),) if rest else (), 64)


MEDIA = Design(
    "media",
    {
        "compose": Call(
            "gateway",
            5,
            (
                (_chain(("user", 3), ("login", 4)), Call("unique-id", 1), Call("text", 8, hold_kib=256)),
                (_chain(("movie-id", 3), ("rating", 3), ("compose", 6), ("reviews", 8), ("timeline", 5)),),
            ),
            128,
        ),
        "page": Call(
            "gateway", 4, ((_chain(("page", 6), ("movie-info", 6), ("plot", 4), ("reviews", 6)),),), 128
        ),
        "timeline": _chain(("gateway", 4), ("user", 2), ("timeline", 6), ("reviews", 5)),
    },
    {"compose": 0.4, "page": 0.4, "timeline": 0.2},
)

DESIGNS = {design.name: design for design in (SHOP, MEDIA)}
