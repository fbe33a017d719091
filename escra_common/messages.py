"""Every message on the wire, as a type: what is not in here cannot be said.

A message is a msgpack array ``[tag, field, ...]``, and a frame is ``[number, message]``, numbered from 0
on each connection.  Fields are only ever appended, with defaults, so that old and new understand each
other.  Numbers are integers with bounds, texts and lists have a greatest length; msgspec checks all of
it on the way in.

Values are levels, not edges: cumulative kernel counters and absolute limits with a
revision.  A lost frame or a reconnect therefore needs no repair.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from escra_common.units import MAX_BYTES, MAX_MILLICORES, MAX_PERIOD_USEC, MIN_PERIOD_USEC

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
MAX_ITEMS = 4096
MAX_EPOCH = 2**32

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Key = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Milli = Annotated[int, Meta(ge=0, le=int(MAX_MILLICORES))]
Size = Annotated[int, Meta(ge=0, le=int(MAX_BYTES))]
Quota = Annotated[int, Meta(ge=0, le=10**12)]
Period = Annotated[int, Meta(ge=MIN_PERIOD_USEC, le=MAX_PERIOD_USEC)]
Weight = Annotated[int, Meta(ge=1, le=10_000)]
Epoch = Annotated[int, Meta(ge=0, le=MAX_EPOCH)]
Mode = Literal["auto", "observe", "off"]
Fallback = Literal["hold", "floor", "restore"]


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    """Those that hold only numbers, texts and others like them cannot be in a cycle: ``gc=False``."""


class CpuLimit(_Wire, frozen=True, gc=False):
    """A CPU limit as the kernel holds it; ``quota_usec`` None is no limit."""

    quota_usec: Quota | None
    period_usec: Period
    burst_usec: Quota = 0


class MemoryLimit(_Wire, frozen=True, gc=False):
    """A memory limit as the kernel holds it, in bytes; None is no limit.

    ``high_bytes`` is memory.high of v2 (v1 has none).  ``swap_bytes`` is what the kernel's own
    file says: memory.swap.max on v2, memory and swap together (memsw) on v1.
    """

    max_bytes: Size | None
    high_bytes: Size | None = None
    swap_bytes: Size | None = None


class ContainerMemory(_Wire, frozen=True, gc=False):
    """The memory side of a container; ``original``, ``in_force`` and ``managed`` as for CPU.

    ``needed_bytes`` is what it uses without the file cache the kernel would drop first.
    ``cap_bytes`` is the tightest limit above it in the tree.
    ``problem`` is why its memory cannot be managed although its CPU may be.
    """

    original: MemoryLimit
    in_force: MemoryLimit
    managed: bool = False
    needed_bytes: Size = 0
    cap_bytes: Size | None = None
    problem: Text = ""


class Hello(_Wire, frozen=True, tag="hello"):
    """First message of both sides.

    ``epoch`` numbers leaderships: a controller says its own, an agent the highest it has ever obeyed, with
    the ``leader`` that had it, and an agent deals with no older one.  A ``standby`` takes no agents.  A
    ``visiting`` agent brings no snapshot: it only makes itself known, and looks who leads.

    ``hosts`` is how many there were by the last word of a controller that the agent obeyed, and
    ``hosts_epoch`` that one's leadership: who leads after it knows by that whether it has met all of them.
    ``unmet``: not all controllers that the agent knows of have heard of it yet.
    ``several``: it knows of more than one, and may obey another while this one does not hear of it.
    """

    role: Literal["agent", "controller"]
    protocol_min: Count
    protocol_max: Count
    software: Name
    host: Name
    boot_id: Text = ""
    cpus: Annotated[int, Meta(ge=0, le=100_000)] = 0
    memory_bytes: Size = 0
    cgroup_version: Literal["v1", "v2", "hybrid", ""] = ""
    epoch: Epoch = 0
    leader: Text = ""
    standby: bool = False
    visiting: bool = False
    hosts: Count = 0
    hosts_epoch: Epoch = 0
    unmet: bool = False
    several: bool = False


class Container(_Wire, frozen=True, gc=False):
    """One container as its agent sees it.

    ``key`` is the inode of its CPU cgroup: it names this incarnation and no other (paths and
    Docker ids come back after a restart).  ``original`` is what Escra found before its first
    write, ``in_force`` what the kernel holds now.  ``managed`` says that Escra wrote the limit
    in force.  ``cap_milli`` is the tightest limit above it in the tree.  ``problem`` is why
    it cannot be managed (a label that does not parse, a denied write), for people to read.
    ``memory`` is None where there is no memory controller for it.
    """

    key: Key
    id: Name
    name: Name
    app: Text
    cgroup: Annotated[str, Meta(max_length=4096)]
    mode: Mode
    original: CpuLimit
    in_force: CpuLimit
    managed: bool = False
    weight: Weight = 100
    cpu_min_milli: Milli | None = None
    cpu_max_milli: Milli | None = None
    memory_min_bytes: Size | None = None
    memory_max_bytes: Size | None = None
    cap_milli: Milli | None = None
    pinned: bool = False
    problem: Text = ""
    memory: ContainerMemory | None = None


class Snapshot(_Wire, frozen=True, tag="snapshot"):
    """All containers of the host, the whole truth: what is not listed does not exist.

    Split over several frames when it is long; ``last`` marks the end.
    """

    containers: Annotated[list[Container], Meta(max_length=MAX_ITEMS)]
    last: bool = True


class Appeared(_Wire, frozen=True, tag="appeared"):
    """A container is new, or something other than its counters changed."""

    container: Container


class Gone(_Wire, frozen=True, tag="gone"):
    key: Key


class Sample(_Wire, frozen=True, gc=False):
    """Cumulative kernel counters of one container, read at ``time_usec`` (the agent's monotonic clock).

    ``writes`` counts our own quota writes so far and ``rev`` is the last one's revision:
    a write refills the quota (K3) and hides throttling (K4), so the reader must know of it.
    ``dry``: read between two ticks, because the quota will not do for the period under way.
    """

    key: Key
    time_usec: Count
    usage_usec: Count
    nr_periods: Count
    nr_throttled: Count
    throttled_usec: Count
    writes: Count
    rev: Count
    dry: bool = False


class Samples(_Wire, frozen=True, tag="samples"):
    samples: Annotated[list[Sample], Meta(max_length=MAX_ITEMS)]


class MemoryLevel(_Wire, frozen=True, gc=False):
    """Memory as the kernel counts it.

    ``peak_bytes`` is the most seen in use since the level before, ``cache_bytes`` the file cache
    that the kernel would drop first, as last looked at.  The rest counts since the cgroup was made:
    ``high`` and ``max`` are how often use ran into memory.high and the limit (v1 knows the limit
    only), ``oom`` how often nothing could be freed there (v1 does not count it), ``oom_kills`` tasks killed.
    """

    key: Key
    used_bytes: Size
    limit_bytes: Size | None
    oom_events: Count = 0
    oom_kills: Count = 0
    peak_bytes: Size = 0
    cache_bytes: Size = 0
    high_events: Count = 0
    max_events: Count = 0


class MemoryLevels(_Wire, frozen=True, tag="memory"):
    levels: Annotated[list[MemoryLevel], Meta(max_length=MAX_ITEMS)]


class MemoryNeed(_Wire, frozen=True, tag="need"):
    """A container is about to run out of memory, or has (``paused``: its tasks wait in the kernel).

    Sent at once and never left out.  ``serial`` numbers the needs of one container: it is sent
    again under the same serial until it is answered by an order or a denial.  ``limit_bytes`` is the limit
    in force when it was seen: a need below the limit of now was met already.  ``growth`` in bytes per
    second; ``seen_usec`` is when the kernel gave notice, on the agent's monotonic clock.
    """

    key: Key
    serial: Count
    limit_bytes: Size
    needed_bytes: Size
    growth: Size
    paused: bool
    seen_usec: Count


class OomKilled(_Wire, frozen=True, tag="oom-killed"):
    """The kernel killed ``kills`` tasks; ``cause`` says at whose limit, as far as can be told."""

    key: Key
    kills: Count
    cause: Text


class Ack(_Wire, frozen=True, gc=False):
    """What the kernel held after a write, read back; ``error`` says why it is not what was asked.

    While only what it leaves of the period was written, ``in_force`` is the whole limit, and another ack
    follows when that is written.  ``extra_usec`` is what a write lets through beyond the limit, at most (K3).
    """

    key: Key
    rev: Count
    in_force: CpuLimit
    error: Text = ""
    extra_usec: Size = 0


class Applied(_Wire, frozen=True, tag="applied"):
    acks: Annotated[list[Ack], Meta(max_length=MAX_ITEMS)]


class MemoryAck(_Wire, frozen=True, gc=False):
    """As ``Ack``; ``needed_bytes`` was read after the write.

    ``answer_usec``: when the write met an outstanding need, the time since the kernel gave notice of it.
    """

    key: Key
    rev: Count
    in_force: MemoryLimit
    needed_bytes: Size = 0
    error: Text = ""
    answer_usec: Count = 0


class MemoryApplied(_Wire, frozen=True, tag="memory-applied"):
    acks: Annotated[list[MemoryAck], Meta(max_length=MAX_ITEMS)]


class MemoryDrawn(_Wire, frozen=True, tag="drawn"):
    """A need that was met at once, out of the headroom of the order ``rev``, of which nothing is left.

    Never left out.  ``in_force`` was read back after the write, ``answer_usec`` after the kernel's notice.
    """

    need: MemoryNeed
    rev: Count
    in_force: MemoryLimit
    answer_usec: Count = 0

    @property
    def key(self) -> int:
        return self.need.key


class Heartbeat(_Wire, frozen=True, tag="heartbeat"):
    """Sent once a second; the agent's counters are totals since it started.

    ``sent_usec`` is the agent's clock, and ``echo_usec`` the last such time that the controller has read:
    by it the agent knows until when the controller counts on it (the lease).  ``hosts`` is how many hosts the
    controller counts, those that are away among them, and the agent says it back when it will not forget it.
    ``unmet`` as in HELLO.
    """

    ticks: Count = 0
    late_ticks: Count = 0
    dropped_samples: Count = 0
    drift_repairs: Count = 0
    writes: Count = 0
    refill_usec: Count = 0
    memory_writes: Count = 0
    sent_usec: Count = 0
    echo_usec: Count = 0
    terms: Count = 0
    hosts: Count = 0
    unmet: bool = False
    lent_usec: Count = 0


class CpuOrder(_Wire, frozen=True, gc=False):
    """The limit to hold from now on.

    ``aligned`` asks to write just after a period boundary, where the refill that every write
    brings (K3) finds nothing used yet; without it the write happens at once.

    By ``headroom_milli`` more the agent may raise it itself when it will not do, as if ordered so under the
    next revision: until the next order for it or another connection, for that is counted as in force.
    """

    key: Key
    rev: Count
    cpu_milli: Milli
    burst_milli: Milli = 0
    aligned: bool = False
    headroom_milli: Milli = 0


class SetLimits(_Wire, frozen=True, tag="set"):
    orders: Annotated[list[CpuOrder], Meta(max_length=MAX_ITEMS)]


class MemoryOrder(_Wire, frozen=True, gc=False):
    """The memory limit to hold from now on.

    A raise is written at once.  A cut is made as far as it harms nobody: never below what the container
    needs plus ``margin_bytes``, and the acknowledgement says how far that was.  The first order for a
    container that is not managed yet is carried out wholly or not at all.

    By up to ``headroom_bytes`` more the agent may raise it itself when there is need, until the next order
    for it or another connection: whoever gives the order counts that as in force.
    """

    key: Key
    rev: Count
    max_bytes: Size
    margin_bytes: Size = 0
    headroom_bytes: Size = 0


class SetMemory(_Wire, frozen=True, tag="set-memory"):
    orders: Annotated[list[MemoryOrder], Meta(max_length=MAX_ITEMS)]


class DenyMemory(_Wire, frozen=True, tag="deny-memory"):
    """There is no memory for this need: let the kernel do what it does at a limit."""

    key: Key
    serial: Count
    reason: Text


class Release(_Wire, frozen=True, tag="release"):
    """Stop managing this container: put its original limits back, and acknowledge both with ``rev``."""

    key: Key
    rev: Count


class AppTerms(_Wire, frozen=True):
    """What an agent does with an application's containers when it has had no controller for ``lease_s``.

    ``floor``: CPU down to ``cpu_min_milli`` and memory to ``memory_min_bytes``, where the container names
    no floor of its own, and never below what is in use.
    """

    app: Name
    fallback: Fallback
    lease_s: Annotated[int, Meta(ge=1, le=10**7)]
    cpu_min_milli: Milli = 0
    memory_min_bytes: Size = 0


class Terms(_Wire, frozen=True, tag="terms"):
    """Of all applications; those not named hold.  The agent's heartbeats say which ``serial`` is in force."""

    serial: Count
    apps: Annotated[list[AppTerms], Meta(max_length=MAX_ITEMS)]


class Bye(_Wire, frozen=True, tag="bye"):
    """Why the sender closes; ``retry`` false means that trying again cannot help."""

    reason: Text
    retry: bool = True


FromAgent = (
    Hello
    | Snapshot
    | Appeared
    | Gone
    | Samples
    | MemoryLevels
    | MemoryNeed
    | OomKilled
    | Applied
    | MemoryApplied
    | MemoryDrawn
    | Heartbeat
    | Bye
)
FromController = Hello | SetLimits | SetMemory | DenyMemory | Release | Terms | Heartbeat | Bye
Message = FromAgent | FromController
