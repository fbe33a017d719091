"""What a Docker Engine answers, as values.  Pure.

Of what it says, only what matters here is looked at, and that strictly: what is taken in goes on to the
controller, which cuts off a host that says what cannot be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from escra_common.errors import EscraError
from escra_common.messages import CpuLimit, Name
from escra_common.units import MAX_BYTES, MAX_PERIOD_USEC, MIN_PERIOD_USEC

T = TypeVar("T")

# dockerd's own period when only a quota is given, and what it makes of --cpus.
_PERIOD_USEC = 100_000
# Docker sets no bound, the wire does.
_MOST_NAME = 255


class NotUnderstood(EscraError):
    """An answer that is none of Docker's."""


@dataclass(frozen=True, slots=True)
class DockerContainer:
    """A running container.  The limits are what Docker was told, not what the kernel holds.

    ``memory_swap_bytes`` is memory and swap together, as Docker counts on both cgroup versions.
    """

    id: str
    name: str
    pid: int
    labels: Mapping[str, str]
    cpu: CpuLimit
    cpuset: str
    memory_bytes: int | None
    memory_swap_bytes: int | None


class _Docker(msgspec.Struct, frozen=True, rename="pascal"):
    """What is ``HostConfig`` there is ``host_config`` here."""


class _State(_Docker, frozen=True):
    running: bool
    pid: Annotated[int, Meta(ge=0, lt=2**31)]


class _Config(_Docker, frozen=True):
    labels: dict[str, str] | None = None


class _HostConfig(_Docker, frozen=True):
    nano_cpus: Annotated[int, Meta(ge=0, le=10**15)] | None = None
    cpu_quota: Annotated[int, Meta(le=10**12)] | None = None
    cpu_period: Annotated[int, Meta(ge=0, le=MAX_PERIOD_USEC)] | None = None
    cpuset_cpus: str | None = None
    memory: int | None = None
    memory_swap: int | None = None


class _Inspected(_Docker, frozen=True):
    id: Name
    name: Annotated[str, Meta(min_length=2)]
    state: _State
    config: _Config
    host_config: _HostConfig


class _Actor(msgspec.Struct, frozen=True):
    id: Name = msgspec.field(name="ID")


class _Listed(_Docker, frozen=True):
    id: Name


class _Event(_Docker, frozen=True):
    actor: _Actor


def id_of(event: Any) -> str:
    """Whom an event is about; raises NotUnderstood."""
    return _read(event, _Event).actor.id


def ids_of(listed: Any) -> list[str]:
    """Who is in `docker ps`; raises NotUnderstood."""
    return [listed.id for listed in _read(listed, list[_Listed])]


def container_of(shown: Any) -> DockerContainer | None:
    """What `docker inspect` says, None when it does not run; raises NotUnderstood."""
    said = _read(shown, _Inspected)
    # Between two attempts of a restart policy a container counts as running, without a process.
    if not said.state.running or not said.state.pid:
        return None
    host = said.host_config
    return DockerContainer(
        id=said.id,
        name=said.name.removeprefix("/")[:_MOST_NAME],
        pid=said.state.pid,
        labels=said.config.labels or {},
        cpu=_cpu_limit(host.nano_cpus or 0, host.cpu_quota or 0, host.cpu_period or _PERIOD_USEC),
        cpuset=host.cpuset_cpus or "",
        memory_bytes=_memory_limit(host.memory),
        memory_swap_bytes=_memory_limit(host.memory_swap),
    )


def _read(said: Any, kind: type[T]) -> T:
    try:
        # There and back again: text that is not Unicode could be passed on nowhere.
        return msgspec.json.decode(msgspec.json.encode(said), type=kind)
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(str(error)[:300]) from error


def _cpu_limit(nano_cpus: int, quota_usec: int, period_usec: int) -> CpuLimit:
    """`--cpus` or `--cpu-quota` and `--cpu-period`; a quota of 0 is "not given", of -1 "none"."""
    if nano_cpus:
        return CpuLimit(nano_cpus * _PERIOD_USEC // 10**9, _PERIOD_USEC)
    if period_usec < MIN_PERIOD_USEC:
        raise NotUnderstood(f"a period of {period_usec} us, which no kernel takes")
    return CpuLimit(quota_usec if quota_usec > 0 else None, period_usec)


def _memory_limit(size: int | None) -> int | None:
    """0 is "not given", -1 "none", and so is more than any machine has."""
    return size if size is not None and 0 < size <= MAX_BYTES else None
