"""What can happen to the engine, and what it can ask for.

Events are past tense, instructions imperative; both are values.  The wire's own types
(Container, Sample, Ack ...) are used as they are: their validation is their meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from escra_common.messages import Ack, Container, Heartbeat, Hello, MemoryLevel, Sample

# ---- events ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AgentJoined:
    """An agent's HELLO and snapshot arrived: ``containers`` is the whole truth about its host."""

    hello: Hello
    containers: Sequence[Container]


@dataclass(frozen=True, slots=True)
class AgentLeft:
    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class ContainerAppeared:
    """Also when something about a known container changed (a rename, a docker update)."""

    host: str
    container: Container


@dataclass(frozen=True, slots=True)
class ContainerGone:
    host: str
    key: int


@dataclass(frozen=True, slots=True)
class SamplesArrived:
    host: str
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class MemoryArrived:
    host: str
    levels: Sequence[MemoryLevel]


@dataclass(frozen=True, slots=True)
class LimitsApplied:
    host: str
    acks: Sequence[Ack]


@dataclass(frozen=True, slots=True)
class AgentReported:
    """An agent's totals, once a second."""

    host: str
    totals: Heartbeat


@dataclass(frozen=True, slots=True)
class AppSpec:
    """One application's share of the machines, and the defaults of its containers.

    CPU in millicores, memory in bytes.  ``cpu_min`` is the floor and ``cpu_max`` the ceiling
    of a container that names none itself.
    """

    name: str
    cpu: int
    memory: int
    cpu_min: int = 50
    cpu_max: int | None = None
    weight: int = 100


@dataclass(frozen=True, slots=True)
class AppsConfigured:
    """The applications as the operator wants them; those not named are released."""

    apps: Sequence[AppSpec]


@dataclass(frozen=True, slots=True)
class AppResized:
    """A person changed Ω of one application; None leaves that part as it is."""

    app: str
    cpu: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed; sent every 100 ms."""


Event = (
    AgentJoined
    | AgentLeft
    | ContainerAppeared
    | ContainerGone
    | SamplesArrived
    | MemoryArrived
    | LimitsApplied
    | AgentReported
    | AppsConfigured
    | AppResized
    | Ticked
)

# ---- instructions ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetLimit:
    host: str
    key: int
    rev: int
    cpu_milli: int
    burst_milli: int
    aligned: bool


@dataclass(frozen=True, slots=True)
class ReleaseContainer:
    """Give the original limit back and stop managing."""

    host: str
    key: int
    rev: int


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the audit: why a limit moved, or why it could not.

    ``rule`` is the short stable name (``throttled``, ``idle``, ``fair`` ...), ``cause`` the
    sentence for people, ``numbers`` what the rule saw.  Limits in millicores; None is "no limit".
    """

    at: float
    app: str
    host: str
    container: str
    key: int
    rule: str
    cause: str
    before_milli: int | None
    after_milli: int | None
    numbers: Mapping[str, float] = field(default_factory=dict)


Instruction = SetLimit | ReleaseContainer | Decision
