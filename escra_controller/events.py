"""What can happen to the engine, and what it can ask for.

Events are past tense, instructions imperative; both are values.  The wire's own types
(Container, Sample, Ack ...) are used as they are: their validation is their meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from escra_common.messages import (
    Ack,
    Container,
    Fallback,
    Heartbeat,
    Hello,
    MemoryAck,
    MemoryDrawn,
    MemoryLevel,
    MemoryNeed,
    OomKilled,
    Sample,
    Terms,
)
from escra_controller.bounds import Bound

Resource = Literal["cpu", "memory"]
AppMode = Literal["auto", "observe"]

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
class MemoryNeeded:
    """A container is about to run out of memory, or waits for it already."""

    host: str
    need: MemoryNeed


@dataclass(frozen=True, slots=True)
class MemoryDrew:
    """It was about to run out, and its agent met that out of the headroom of an order."""

    host: str
    drawn: MemoryDrawn


@dataclass(frozen=True, slots=True)
class TasksKilled:
    host: str
    killed: OomKilled


@dataclass(frozen=True, slots=True)
class LimitsApplied:
    host: str
    acks: Sequence[Ack]


@dataclass(frozen=True, slots=True)
class MemoryApplied:
    host: str
    acks: Sequence[MemoryAck]


@dataclass(frozen=True, slots=True)
class AgentReported:
    """An agent's totals, once a second."""

    host: str
    totals: Heartbeat


@dataclass(frozen=True, slots=True)
class AppSpec:
    """One application's share of the machines, and the defaults of its containers.

    CPU in millicores, memory in bytes.  ``cpu_min`` and ``memory_min`` are the floors, ``cpu_max``
    and ``memory_max`` the ceilings of a container that names none itself.  ``fallback`` is what an agent does
    after ``lease_s`` without a controller.  ``mode`` observe: nothing is written to any of its containers.
    """

    name: str
    cpu: int
    memory: int
    cpu_min: int = 50
    cpu_max: int | None = None
    memory_min: int = 16 << 20
    memory_max: int | None = None
    weight: int = 100
    fallback: Fallback = "hold"
    lease_s: int = 300
    mode: AppMode = "auto"


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


@dataclass(frozen=True, slots=True)
class HostForgotten:
    """A person says that this host holds nothing any more: it is gone for good, or was never ours."""

    host: str


@dataclass(frozen=True, slots=True)
class Secured:
    """A bound is durable: see ``Secure``."""

    app: str
    host: str
    bound: Bound


Event = (
    AgentJoined
    | AgentLeft
    | ContainerAppeared
    | ContainerGone
    | SamplesArrived
    | MemoryArrived
    | MemoryNeeded
    | MemoryDrew
    | TasksKilled
    | LimitsApplied
    | MemoryApplied
    | AgentReported
    | AppsConfigured
    | AppResized
    | HostForgotten
    | Secured
    | Ticked
)

# ---- instructions ------------------------------------------------------------------


class SetLimit(msgspec.Struct, frozen=True, gc=False):
    """By ``headroom_milli`` more its agent may raise the limit itself, under the next revision."""

    host: str
    key: int
    rev: int
    cpu_milli: int
    burst_milli: int
    aligned: bool
    headroom_milli: int = 0


class SetMemoryLimit(msgspec.Struct, frozen=True, gc=False):
    """``margin_bytes`` bounds a cut: the container keeps that much above what it needs.

    By ``headroom_bytes`` more its agent may raise the limit itself.
    """

    host: str
    key: int
    rev: int
    max_bytes: int
    margin_bytes: int
    headroom_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DenyNeed:
    host: str
    key: int
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseContainer:
    """Give the original limits back and stop managing."""

    host: str
    key: int
    rev: int


@dataclass(frozen=True, slots=True)
class SendTerms:
    host: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class Secure:
    """Make this bound durable, then say so with ``Secured``; those of one application and host in order.

    ``host`` "" is the bound of the sum over all hosts; ``NOTHING`` takes the bound away.
    """

    app: str
    host: str
    bound: Bound


class Decision(msgspec.Struct, frozen=True, gc=False):
    """One line of the audit: why a limit moved, or why it could not.

    ``rule`` is the short stable name (``throttled``, ``idle``, ``grow`` ...), ``cause`` the sentence for
    people, ``numbers`` what the rule saw.  Limits in millicores or bytes; None is "no limit".
    ``observed``: it would have been so; nothing was written.
    """

    at: float
    app: str
    host: str
    container: str
    key: int
    resource: Resource
    rule: str
    cause: str
    before: int | None
    after: int | None
    numbers: Mapping[str, float] = msgspec.field(default_factory=dict)
    observed: bool = False


Order = SetLimit | SetMemoryLimit | DenyNeed | ReleaseContainer | SendTerms
Instruction = Order | Secure | Decision
