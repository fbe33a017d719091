"""What an application is: a call tree for each of its operations, and services that live somewhere."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.compare.wire import Tree
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import FoundCgroup

# Its name for Escra.
APP = "bench"

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

    @property
    def entry(self) -> str:
        """Where requests go in, on this machine: tcp://ADDRESS:PORT for frames, or http://ADDRESS."""
        ...

    @property
    def containers(self) -> Mapping[str, FoundCgroup]:
        """By service."""
        ...

    @property
    def parent(self) -> FoundCgroup:
        """What the containers are in, and nothing else is."""
        ...

    @property
    def agent_toml(self) -> str:
        """What tells an agent where to find them, as containers of the application ``APP``."""
        ...


class Place(Protocol):
    """Where services live: in bare cgroups, or in containers of Docker."""

    name: str
    hierarchy: Hierarchy

    @property
    def designs(self) -> Mapping[str, Design]:
        """By name."""
        ...

    def running(self, design: Design) -> AbstractContextManager[Application]:
        """It answers from the beginning of the block on, and is gone after it.  Raises TimeoutError with
        what the services said.
        """
        ...
