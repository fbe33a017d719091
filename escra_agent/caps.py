"""What no order may go beyond, whoever gives it: this host's caps, and each container's own labels.  Pure.

A controller is told these bounds and keeps them by itself, so an order outside shows that it is broken
or somebody else's.  It is refused as a whole: what was ordered is what a ledger counts, so nothing is
made to fit silently.  An order that leads from outside towards the bounds is in order.

What remains to whoever holds a controller's key: limits anywhere between the bounds (without ``cpu_min``
down to the least the kernel holds, 1 % of a core (K1); without ``memory_min`` down to what is in use plus
``LEAST_MARGIN_BYTES``), to refuse more memory to those that grow, and to give every container its original
limits back.  Each write of a quota hands out a fresh one (K3), so for a while a container may use up to
1 + ``WRITES_PER_S`` * period times its quota; the bounds hold for the limits.
"""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from escra_agent.labels import Labels
from escra_common.units import Cpu, Size, format_bytes

# A cut never leaves less than this above what is in use, nor is one prevented by more than so much.
LEAST_MARGIN_BYTES = 4 << 20
MOST_MARGIN_BYTES = 256 << 20
# Orders for one container: a controller decides ten times a second, and seldom on everybody.
WRITES_PER_S = 20.0
WRITES_AT_ONCE = 40.0

Resource = Literal["cpu", "memory"]


class Caps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[caps]`` of the agent's configuration; the totals are over all managed containers of the host."""

    cpu_min: Cpu | None = None
    cpu_max: Cpu | None = None
    cpu_total: Cpu | None = None
    memory_min: Size | None = None
    memory_max: Size | None = None
    memory_total: Size | None = None

    def problem(self) -> str:
        """Why these cannot all be kept; empty when they can."""
        for resource in ("cpu", "memory"):
            least, most, total = (getattr(self, f"{resource}_{end}") for end in ("min", "max", "total"))
            if most == 0 or total == 0:
                return f"a {resource}_max or {resource}_total of 0 would stop containers; leave it out"
            for name, above in (("max", most), ("total", total)):
                if least is not None and above is not None and least > above:
                    return f"{resource}_min is above {resource}_{name}"
        return ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``cause`` is the same for all refusals that are worth one line in the journal."""

    cause: str
    text: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one container and resource, in millicores or bytes; None is no bound.

    ``least_by`` and ``most_by`` name whose they are.  ``most`` is at most the host's total.
    """

    resource: Resource
    least: int | None
    least_by: str
    most: int | None
    most_by: str

    def refusal(self, ordered: int, present: int | None) -> Refusal | None:
        """Whether a limit of ``ordered`` may not be written over ``present`` (None is no limit)."""
        if self.least is not None and ordered < self.least and (present is None or ordered < present):
            return self._refusal(ordered, "below", self.least, self.least_by)
        if self.most is not None and present is not None and ordered > max(self.most, present):
            return self._refusal(ordered, "above", self.most, self.most_by)
        return None

    def _refusal(self, ordered: int, side: str, bound: int, by: str) -> Refusal:
        asked, allowed = describe(self.resource, ordered), describe(self.resource, bound)
        text = f"refused: {asked} of {self.resource} is {side} {by}, {allowed}; the limit stays"
        return Refusal(f"{side} {by}", text)


@dataclass(frozen=True, slots=True)
class HostCaps:
    """The caps of a host that has so many processors and so much memory, where that is known."""

    caps: Caps = field(default_factory=Caps)
    cpu_milli: int | None = None
    memory_bytes: int | None = None

    def total(self, resource: Resource) -> int | None:
        return self._cap(resource, "total")

    def least(self, labels: Labels, resource: Resource) -> int | None:
        """The highest of the floors that are asked for."""
        own = labels.cpu_min_milli if resource == "cpu" else labels.memory_min_bytes
        return max((n for n in (own, self._cap(resource, "min")) if n is not None), default=None)

    def ceiling(self, resource: Resource, above: int | None) -> int | None:
        """The lowest of the ceilings that are not the container's own; ``above`` is the tree's."""
        return least_of(above, self._cap(resource, "max"), self.total(resource))

    def bounds(self, labels: Labels, resource: Resource, above: int | None) -> Bounds:
        """No floor is above what there is at most: a controller that keeps to that is right."""
        own_least, own_most, there_is = (
            (labels.cpu_min_milli, labels.cpu_max_milli, self.cpu_milli)
            if resource == "cpu"
            else (labels.memory_min_bytes, labels.memory_max_bytes, self.memory_bytes)
        )
        ceilings = {
            f"its own escra.{resource}.max": own_most,
            f"this host's [caps] {resource}_max": self._cap(resource, "max"),
            f"this host's [caps] {resource}_total": self.total(resource),
        }
        most = least_of(*ceilings.values())
        most_by = next((by for by, ceiling in ceilings.items() if ceiling == most), "")
        least = self.least(labels, resource)
        by_label = own_least is not None and own_least == least
        least_by = f"its own escra.{resource}.min" if by_label else f"this host's [caps] {resource}_min"
        if least is not None:
            least = least_of(least, most, above, there_is)
        return Bounds(resource, least, least_by, most, most_by)

    def _cap(self, resource: Resource, end: Literal["min", "max", "total"]) -> int | None:
        amount: int | None = getattr(self.caps, f"{resource}_{end}")
        # A plain number: it goes over the wire.
        return None if amount is None else int(amount)


UNCAPPED = HostCaps()


def total_refusal(
    resource: Resource, total: int | None, others: int, ordered: int, present: int
) -> Refusal | None:
    """Whether a raise to ``ordered`` would be too much beside what all ``others`` may have."""
    if total is None or ordered <= present or others + ordered <= total:
        return None
    return Refusal(
        f"{resource} total",
        f"refused: {describe(resource, ordered)} of {resource} beside {describe(resource, others)} of others "
        f"is above this host's [caps] {resource}_total, {describe(resource, total)}; the limit stays",
    )


def margin_bytes(ordered: int, needed_bytes: int) -> int:
    """The margin of a cut: the one ordered, as long as it neither hurts nor prevents every cut."""
    return min(max(ordered, LEAST_MARGIN_BYTES), max(MOST_MARGIN_BYTES, needed_bytes))


class Pace:
    """So many orders of one kind, and no more: ``at_once`` saved up, ``per_s`` coming back."""

    __slots__ = ("_at", "_at_once", "_left", "_per_s")

    def __init__(self, per_s: float = WRITES_PER_S, at_once: float = WRITES_AT_ONCE) -> None:
        self._per_s = per_s
        self._at_once = self._left = at_once
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Whether one more may be carried out now."""
        if now > self._at:
            # After a long time, or at first, all are there again.
            self._left = min(self._at_once, self._left + self._per_s * min(now - self._at, self._at_once))
            self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


TOO_FAST = Refusal(
    "too fast", f"refused: more than {WRITES_PER_S:.0f} orders a second for one container; the limit stays"
)
NOT_OURS = Refusal("not ours", "refused: it is not ours to limit")


def least_of(*amounts: int | None) -> int | None:
    """None is no limit."""
    return min((amount for amount in amounts if amount is not None), default=None)


def describe(resource: Resource, amount: int) -> str:
    """
    >>> describe("cpu", 1500), describe("memory", 64 << 20)
    ('1.5 cores', '64.0MiB')
    """
    return f"{amount / 1000:g} cores" if resource == "cpu" else format_bytes(amount)
