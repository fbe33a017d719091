"""What the store keeps, as values.

Amounts are millicores and bytes, instants are seconds of unix time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from escra_controller.bounds import NOTHING, Bound

# A host and an application.
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Size:
    """Ω as an operator set it; None is "as the configuration says"."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None


AS_CONFIGURED = Size()


@dataclass(frozen=True, slots=True)
class Meta:
    """``starts`` counts the leaders that started on this store, ``generation`` is that of the leadership.

    ``clean``: the last end was a clean stop.  ``lost``: why bounds from before may be missing here;
    "" when none are.
    """

    generation: int = 0
    starts: int = 0
    promoted: bool = False
    clean: bool = False
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier controller left, and this start already counted in ``starts``.

    With ``lost`` there may be hosts that hold limits which no bound here tells of.
    """

    generation: int
    starts: int
    promoted: bool
    clean: bool
    bounds: Mapping[Place, Bound]
    sizes: Mapping[str, Size]
    lost: str


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One application at one instant.  ``throttled_ratio`` is the share of its periods cut short."""

    at: float
    app: str
    cpu_limit_milli: int
    cpu_allocated_milli: int
    cpu_used_milli: int
    memory_limit_bytes: int
    memory_allocated_bytes: int
    memory_used_bytes: int
    containers: int
    hosts: int
    throttled_ratio: float


class ContainerRow(msgspec.Struct, frozen=True, gc=False):
    """One container over the ``span_s`` seconds before ``at``.

    Limits and use are means, ``..._peak`` the most seen in a tenth of a second; ``throttled_ratio`` is the
    mean, ``throttled_peak`` the largest share of its periods cut short.  A limit or original of None is
    none (in that case at some time of the span).  The OOM counts are those of the span.  ``would_...`` is
    what an observed container would have had; None for a managed one.
    """

    at: float
    span_s: float
    app: str
    host: str
    key: int
    container: str
    observed: bool
    cpu_limit_milli: float | None
    cpu_used_milli: float
    cpu_peak_milli: float
    cpu_original_milli: int | None
    throttled_ratio: float
    throttled_peak: float
    memory_limit_bytes: float | None
    memory_used_bytes: float
    memory_peak_bytes: int
    memory_original_bytes: int | None
    oom_events: int = 0
    oom_kills: int = 0
    oom_averted: int = 0
    would_cpu_milli: float | None = None
    would_memory_bytes: float | None = None
    would_throttled: float | None = None


@dataclass(slots=True)
class Changes:
    """What has to become durable; of several for one place or application the latest counts."""

    meta: Meta | None = None
    bounds: dict[Place, Bound] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)

    def merge(self, later: "Changes") -> None:
        self.meta = later.meta or self.meta
        self.bounds |= later.bounds
        self.sizes |= later.sizes

    def __bool__(self) -> bool:
        return bool(self.meta or self.bounds or self.sizes)


@dataclass(slots=True)
class Known:
    """All that a store must be able to say after a crash."""

    meta: Meta = field(default_factory=Meta)
    bounds: dict[Place, Bound] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)

    def apply(self, changes: Changes) -> None:
        self.meta = changes.meta or self.meta
        self.bounds = {k: v for k, v in (self.bounds | changes.bounds).items() if v != NOTHING}
        self.sizes = {k: v for k, v in (self.sizes | changes.sizes).items() if v != AS_CONFIGURED}

    def started(self, lost: str) -> None:
        """A leader starts; what was lost before stays lost until someone says that it no longer matters."""
        reasons = "; ".join(reason for reason in (self.meta.lost, lost) if reason)
        self.meta = replace(self.meta, starts=self.meta.starts + 1, clean=False, lost=reasons)

    def all(self) -> Changes:
        return Changes(self.meta, dict(self.bounds), dict(self.sizes))
