"""What is looked at on a host, and what is said about it.  Pure: values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from escra_common.expiry import Expiry

Severity = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``found``: what is the case and why it matters.  ``advice``: what to do, "" when all is well."""

    check: str
    severity: Severity
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine.  None: could not be told.

    ``controllers`` are those of cpu and memory that this machine has, ``handed_down`` those that units and
    containers get (v2).  ``quota``, ``burst`` and ``swap_limits``: the kernel has the files for them.
    """

    release: str
    version: tuple[int, int]
    cgroup: Literal["v1", "v2", "hybrid", ""]
    controllers: frozenset[str] = frozenset({"cpu", "memory"})
    handed_down: frozenset[str] | None = None
    read_only: bool = False
    quota: bool | None = True
    burst: bool | None = True
    pressure: bool = True
    swap_total_bytes: int = 0
    swap_limits: bool | None = True
    clock_source: str = "tsc"
    clock_synchronised: bool | None = True
    cpus: int = 1
    open_files: tuple[int, int] | None = None
    systemd: bool = True
    superuser: bool = True
    # Names of running processes, each once.
    processes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Docker:
    """What the engine at ``socket`` says; ``error`` instead of all else when it says nothing."""

    socket: str
    error: str = ""
    version: str = ""
    driver: str = ""
    rootless: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A state directory.  ``ahead_s``: how far the newest file is in the future."""

    path: str
    exists: bool = True
    mode: int = 0o700
    free_bytes: int = 1 << 40
    read_only: bool = False
    ahead_s: float = 0.0
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Tls:
    """``error``: the files do not work.  ``unseen``: they are systemd's to hand out, and cannot be found."""

    ends: Sequence[Expiry] = ()
    error: str = ""
    unseen: str = ""
    key: str = ""
    key_mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Daemon:
    """The agent or the controller of this host.

    ``config`` is what `check-config` prints, None with ``config_error`` saying why.  ``unit`` has the
    properties that systemd shows, None where it has no such unit.
    """

    name: Literal["agent", "controller"]
    config_path: str
    config: Mapping[str, Any] | None = None
    config_error: str = ""
    unit: Mapping[str, str] | None = None
    lock_holder: int | None = None
    state: Folder | None = None
    tls: Tls | None = None

    @property
    def running(self) -> bool:
        return self.lock_holder is not None or (self.unit or {}).get("ActiveState") == "active"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a controller's address answered: ``error``, or who is there."""

    address: str
    error: str = ""
    software: str = ""
    host: str = ""
    standby: bool = False


@dataclass(frozen=True, slots=True)
class Socket:
    """The control socket; ``problems``: what the controller says of itself, None when it cannot be asked."""

    path: str
    error: str = ""
    problems: Sequence[str] | None = None
    group: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything; ``follow`` are the units beside which a file says their limits, and whether they exist."""

    host: Host
    daemons: Sequence[Daemon] = ()
    docker: Docker | None = None
    follow: Mapping[str, bool] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    socket: Socket | None = None
    metrics_error: str | None = None
    now: float = 0.0
