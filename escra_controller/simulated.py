"""A host that exists only in memory: CFS bandwidth control and an agent's side of the talk.

Pure: demand is a function of time, and time an argument, so the engine that runs in production
can be run on a virtual clock.  The kernel is stepped in the 5 ms in which it deals quota to CPUs
(K2), and what is known to matter to a controller is kept:

- a period timer per group with a phase of its own (K6) that stops when the group idles (K5);
- nr_throttled counts groups found throttled at the boundary, throttled time grows at once (K4);
- a write adds one quota to the running pool and lifts the throttling (K3);
- unused quota carries over as far as the burst goes (K8).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from escra_common.messages import Ack, Container, CpuLimit, Hello, Sample
from escra_common.session import hello
from escra_common.units import quota_usec
from escra_controller.events import LimitsApplied, ReleaseContainer, SamplesArrived, SetLimit

STEP_USEC = 5_000
PERIOD_USEC = 100_000

Demand = Callable[[float], float]


@dataclass(slots=True)
class SimulatedContainer:
    """A group and the work that wants to run in it.

    ``demand`` gives the cores wanted at a time in seconds.  Work that had no CPU waits, up to
    ``patience_s`` seconds of the present demand; what is older is shed, as clients give up.
    ``threads`` bounds the cores it can use at once.
    """

    key: int
    name: str
    app: str
    demand: Demand
    limit: CpuLimit
    threads: int = 2
    patience_s: float = 0.3
    phase_usec: int = 0

    # Cumulative, as in cpu.stat; work in microseconds of CPU.
    usage_usec: int = 0
    nr_periods: int = 0
    nr_throttled: int = 0
    throttled_usec: int = 0
    offered_usec: float = 0.0
    shed_usec: float = 0.0

    original: CpuLimit = field(init=False)
    managed: bool = False
    rev: int = 0
    writes: int = 0
    throttled: bool = False
    _backlog_usec: float = 0.0
    _pool_usec: float = field(init=False)
    _timer: bool = False
    _idle: bool = True

    def __post_init__(self) -> None:
        self.original = self.limit
        self._pool_usec = float(self.limit.quota_usec or 0)

    def arrive(self, time_usec: int) -> None:
        """The work of one step arrives; what clients no longer wait for leaves."""
        wanted = self.demand(time_usec / 1e6)
        arriving = wanted * STEP_USEC
        self.offered_usec += arriving
        self._backlog_usec += arriving
        excess = self._backlog_usec - max(arriving, wanted * self.patience_s * 1e6)
        if excess > 0:
            self._backlog_usec -= excess
            self.shed_usec += excess

    def runnable_usec(self) -> float:
        """The CPU time it could take in this step."""
        wanted = min(self._backlog_usec, self.threads * STEP_USEC)
        return wanted if self.limit.quota_usec is None else min(wanted, max(0.0, self._pool_usec))

    def run(self, given_usec: float) -> None:
        """One step passes in which it gets this much CPU time."""
        self._backlog_usec -= given_usec
        self.usage_usec += round(given_usec)
        if self.limit.quota_usec is None:
            return
        if given_usec > 0:
            self._timer, self._idle = True, False
        self._pool_usec -= given_usec
        self.throttled = self._pool_usec < 1 and self._backlog_usec > 1
        if self.throttled:
            # Summed over the CPUs it wanted to run on (K5).
            self.throttled_usec += round(min(self._backlog_usec, self.threads * STEP_USEC))

    def boundary(self) -> None:
        """The period timer fires."""
        if self.limit.quota_usec is None or not self._timer:
            return
        self.nr_periods += 1
        self._refill()
        if self.throttled:
            self.nr_throttled += 1
        elif self._idle:
            self._timer = False
        self.throttled, self._idle = False, True

    def write(self, limit: CpuLimit) -> None:
        """A limit is written, by whomever: nothing happens unless it differs."""
        if limit == self.limit:
            return
        self.limit = limit
        self.writes += 1
        self.throttled = False
        self._refill()

    def _refill(self) -> None:
        quota = self.limit.quota_usec or 0
        self._pool_usec = min(self._pool_usec + quota, quota + self.limit.burst_usec)


class SimulatedHost:
    """A host with its agent.  ``now`` is seconds on the caller's clock and never goes back.

    Instructions given to ``obey`` are in force at once (aligned ones at the next boundary of their
    group) and acknowledged by the next ``acknowledge``.
    """

    def __init__(
        self, name: str, cpus: int, containers: Sequence[SimulatedContainer], now: float = 0.0
    ) -> None:
        self.name = name
        self.cpus = cpus
        self.containers = {container.key: container for container in containers}
        self._time_usec = round(now * 1e6)
        self._aligned: dict[int, SetLimit] = {}
        self._acks: list[Ack] = []

    def hello(self) -> Hello:
        return hello("agent", self.name, cpus=self.cpus, cgroup_version="v2")

    def snapshot(self) -> list[Container]:
        return [
            Container(
                key=container.key,
                id=container.name,
                name=container.name,
                app=container.app,
                cgroup=f"/simulated/{container.name}",
                mode="auto",
                original=container.original,
                in_force=container.limit,
                managed=container.managed,
            )
            for container in self.containers.values()
        ]

    def advance(self, now: float) -> None:
        """Let the kernel and the work run up to ``now``, in whole steps."""
        while self._time_usec + STEP_USEC <= round(now * 1e6):
            self._step()

    def samples(self) -> SamplesArrived:
        return SamplesArrived(self.name, [self._sample(each) for each in self.containers.values()])

    def obey(self, instruction: SetLimit | ReleaseContainer) -> None:
        """An order that names a container of another incarnation is ignored, as by an agent."""
        container = self.containers.get(instruction.key)
        if container is None or instruction.rev <= container.rev:
            return
        self._aligned.pop(instruction.key, None)
        if isinstance(instruction, ReleaseContainer):
            self._write(container, container.original, instruction.rev, managed=False)
        elif instruction.aligned:
            self._aligned[instruction.key] = instruction
        else:
            self._set(container, instruction)

    def acknowledge(self) -> LimitsApplied | None:
        """What was written since the last call; None when nothing was."""
        if not self._acks:
            return None
        acks, self._acks = self._acks, []
        return LimitsApplied(self.name, acks)

    def _step(self) -> None:
        containers = self.containers.values()
        for container in containers:
            container.arrive(self._time_usec)
        wanted = [container.runnable_usec() for container in containers]
        # The fair scheduler, coarsely: when CPUs are short all runnable work gets the same part.
        share = min(1.0, self.cpus * STEP_USEC / total) if (total := sum(wanted)) > 0 else 1.0
        for container, want in zip(containers, wanted, strict=True):
            container.run(want * share)
        self._time_usec += STEP_USEC
        for container in containers:
            if (self._time_usec - container.phase_usec) % container.limit.period_usec < STEP_USEC:
                container.boundary()
                if order := self._aligned.pop(container.key, None):
                    self._set(container, order)

    def _set(self, container: SimulatedContainer, order: SetLimit) -> None:
        period = container.limit.period_usec
        burst = order.burst_milli * period // 1000
        self._write(container, CpuLimit(quota_usec(order.cpu_milli, period), period, burst), order.rev)

    def _write(
        self, container: SimulatedContainer, limit: CpuLimit, rev: int, *, managed: bool = True
    ) -> None:
        container.write(limit)
        container.rev, container.managed = rev, managed
        self._acks.append(Ack(container.key, rev, container.limit))

    def _sample(self, container: SimulatedContainer) -> Sample:
        return Sample(
            key=container.key,
            time_usec=self._time_usec,
            usage_usec=container.usage_usec,
            nr_periods=container.nr_periods,
            nr_throttled=container.nr_throttled,
            throttled_usec=container.throttled_usec,
            writes=container.writes,
            rev=container.rev,
        )
