"""The hosts of a simulation: machines with containers and an agent, and those with a controller."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from escra_agent.app import Agent
from escra_agent.config import AgentConfig, SystemdConfig
from escra_agent.docker import Changed, DockerContainer, DockerEvent, Started, Stopped, Synced
from escra_agent.parts import Part
from escra_common.configfile import Address, Addresses, AddressOrOff
from escra_common.messages import CpuLimit, MemoryLimit
from escra_common.units import Cpu, Size
from escra_controller.app import Controller
from escra_controller.config import AppConfig, ControllerConfig, ListenConfig
from escra_controller.engine import Engine
from escra_controller.events import AppsConfigured
from escra_controller.policy import Settings
from escra_controller.state import Refused
from tests.simulation import edges
from tests.simulation.clockwork import Clock, Clockwork, Process
from tests.simulation.kernel import Group, Notices
from tests.simulation.network import Network
from tests.simulation.scenario import LEASE_S, Scenario
from tests.simulation.statedisk import StateDisk

PORT = 7737


class SimulatedConfig(AgentConfig, frozen=True):
    """Its state directory is on the simulated disk."""

    @property
    def state_path(self) -> Path:
        folder: Path = edges.Folder(edges.machine().disk)  # type: ignore[assignment]
        return folder


class Surroundings(Protocol):
    clockwork: Clockwork
    network: Network
    notices: Notices

    def say(self, who: str, text: str) -> None: ...


class Host:
    """Something with a name and a clock, on which one daemon runs."""

    def __init__(self, world: Surroundings, name: str, clock: Clock) -> None:
        self.world, self.name, self.clock = world, name, clock
        self.on = True
        self.process: Process | None = None
        self.processes: list[Process] = []
        world.network.add(self)

    def say(self, text: str) -> None:
        self.world.say(self.name, text)

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead

    def begin(self, main: Callable[[], Awaitable[None]]) -> None:
        """Start the daemon."""
        process = Process(self.world.clockwork, self.name, self.clock)
        self.process = process
        self.processes.append(process)
        edges.settle(process, self)
        self.world.network.plug(process, self)
        process.post(lambda: process.create_task(self._watched(process, main)))

    async def _watched(self, process: Process, main: Callable[[], Awaitable[None]]) -> None:
        try:
            await main()
        except BaseException as error:
            if not self.world.clockwork.ended:
                process.failures.append(error)
            raise

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.alive:
            self.process.kill()
            self.world.network.ended(self.process, silently=not self.on)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def go_on(self) -> None:
        if self.process is not None and self.process.stopped:
            self.process.go_on()

    def failures(self) -> list[BaseException]:
        return [error for process in self.processes for error in process.failures]


class Machine(Host):
    """A host with containers and an agent.  ``disk`` outlives everything, ``groups`` only the agent."""

    def __init__(
        self,
        world: Surroundings,
        name: str,
        clock: Clock,
        controllers: list[str],
        *,
        banded: bool,
        lending: bool = False,
        cpus: int = 8,
        memory_bytes: int = 16 << 30,
    ) -> None:
        super().__init__(world, name, clock)
        self.banded, self.cpus, self.memory_bytes = banded, cpus, memory_bytes
        self.lending = lending
        self.boots = 0
        # When its agent last found or lost its controller.
        self.turned_at = float("-inf")
        self.disk: dict[str, bytes] = {}
        self.disk_full = False
        self.groups: dict[int, Group] = {}
        self.parts: dict[int, Part] = {}
        self.daemon: Agent | None = None
        self._addresses = [Address(f"{each}:{PORT}") for each in controllers]
        self._containers: dict[str, DockerContainer] = {}
        self._follower: tuple[asyncio.Queue[DockerEvent], Process] | None = None
        self._told_at = 0.0

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    # ---- the agent -----------------------------------------------------------------

    def knows(self, group: Group) -> bool:
        """Whether an agent runs that has found this container: one that has just begun has not."""
        return self.alive and self.daemon is not None and group.key in self.daemon._roster.tracked

    def start(self) -> None:
        if self.on and not self.alive:
            self.daemon = None
            self.begin(self._main)

    async def _main(self) -> None:
        config = SimulatedConfig(
            controller=Addresses(self._addresses),
            host=self.name,
            systemd=SystemdConfig(follow=False),
            lending=self.lending,
        )
        self.daemon = agent = Agent(Path("agent.toml"), config)
        turned = agent._link._turned

        def note(up: bool) -> None:
            self.turned_at = self.world.clockwork.now
            turned(up)

        agent._link._turned = note
        await agent.run()

    def crash(self) -> None:
        """The power fails: no word to anybody, all containers are gone."""
        self.on = False
        self.kill()
        for group in list(self.groups.values()):
            group.end()
        self.groups.clear()
        self.parts.clear()
        self._containers.clear()

    def boot(self) -> None:
        if not self.on:
            self.on, self.boots = True, self.boots + 1
            self.start()

    # ---- containers ----------------------------------------------------------------

    def follow(self, queue: "asyncio.Queue[DockerEvent]", process: Process) -> None:
        self._follower = queue, process
        queue.put_nowait(Synced(list(self._containers.values())))

    def run_container(self, group: Group) -> None:
        self.groups[group.key] = group
        self._containers[group.id] = container = DockerContainer(
            group.id,
            group.name,
            group.key,
            group.labels,
            group.cpu_original,
            "",
            group.memory_original.max_bytes,
            None,
        )
        self._tell(Started(container))

    def end_container(self, group: Group) -> None:
        group.end()
        self.groups.pop(group.key, None)
        self._containers.pop(group.id, None)
        self._tell(Stopped(group.id))

    def update_container(
        self, group: Group, labels: dict[str, str], cpu: CpuLimit, memory: MemoryLimit
    ) -> None:
        """Other labels, or other limits of its own, as `docker update` gives them: it writes them, too."""
        had = self._containers[group.id]
        group.labels = labels
        if cpu != group.cpu_original:
            group.cpu_former.append(group.cpu_original)
            group.cpu_original = cpu
            group.write_cpu(cpu, ours=False)
        if memory != group.memory_original:
            group.memory_former.append(group.memory_original)
            group.memory_original = memory
            group.write_memory(memory, ours=False)
        changed = DockerContainer(had.id, had.name, had.pid, labels, cpu, "", memory.max_bytes, None)
        self._containers[group.id] = changed
        self._tell(Changed(changed))

    def _tell(self, event: DockerEvent) -> None:
        if self._follower is not None and not self._follower[1].dead:
            queue, process = self._follower
            clockwork = self.world.clockwork
            # Docker tells in order.
            self._told_at = max(self._told_at, clockwork.now + clockwork.rng.uniform(0.001, 0.05))
            clockwork.at(self._told_at, process.post, queue.put_nowait, event)


class ControllerHost(Host):
    """``configured`` is its file, ``apps`` what it follows: millicores and bytes by application.

    ``accepted`` is called when that changes.
    """

    def __init__(
        self,
        world: Surroundings,
        name: str,
        clock: Clock,
        accepted: Callable[[], None],
        scenario: Scenario,
        *,
        standby: bool = False,
    ) -> None:
        super().__init__(world, name, clock)
        self.configured: dict[str, tuple[int, int]] = {}
        self.apps: dict[str, tuple[int, int]] = {}
        self.standby, self._scenario = standby, scenario
        self.state = StateDisk()
        self._accepted = accepted
        self._lock_holder: Process | None = None
        self.daemon: Controller | None = None

    @property
    def engine(self) -> Engine | None:
        """None while it does not lead."""
        return self.daemon._engine if self.daemon is not None and self.leads else None

    @property
    def leads(self) -> bool:
        return self.daemon is not None and self.alive and self.daemon._leadership.role == "leader"

    @property
    def may_lead(self) -> bool:
        """Whether somebody may follow it, now or when it is back."""
        return not self.standby or self.epoch > 0

    @property
    def epoch(self) -> int:
        return self.daemon._leadership.epoch if self.daemon is not None else -1

    def lock(self, process: Process) -> bool:
        if self._lock_holder is None or self._lock_holder.dead:
            self._lock_holder = process
        return self._lock_holder is process

    def promote(self) -> None:
        """A person says that this one is to lead."""
        if self.process is not None and self.alive:
            self.process.post(self._promote)

    def _promote(self) -> None:
        if self.daemon is not None:
            self.say(str(self.daemon._answer({"op": "promote"})))

    def start(self) -> None:
        if not self.alive:
            self.daemon = None
            self.begin(self._main)

    async def _main(self) -> None:
        self.apps = self.configured
        self.daemon = Controller(Path("controller.toml"), self._config(self.apps))
        self._accepted()
        await self.daemon.run()

    def configure(self, apps: dict[str, tuple[int, int]]) -> None:
        """Write the file and reload; a refused one is put back."""
        self.configured = apps
        if self.process is not None and self.alive:
            self.process.post(self._reload, apps)

    def _reload(self, apps: dict[str, tuple[int, int]]) -> None:
        if self.daemon is None:
            return
        config = self._config(apps)
        try:
            if self.leads:
                self.daemon._handle(AppsConfigured(config.specs()))
            self.daemon._config = config
            self.apps = apps
        except Refused as refused:
            self.say(f"configuration refused: {refused}")
            self.configured = self.apps
        self._accepted()

    def _config(self, sizes: dict[str, tuple[int, int]]) -> ControllerConfig:
        listen = ListenConfig(agents=Address(f"{self.name}:{PORT}"), metrics=AddressOrOff(""))
        apps = {
            name: AppConfig(
                cpu=Cpu(cpu), memory=Size(memory), fallback=self._scenario.fallback, lease_s=LEASE_S
            )
            for name, (cpu, memory) in sizes.items()
        }
        policy = Settings(burst=self._scenario.burst)
        return ControllerConfig(standby=self.standby, listen=listen, apps=apps, policy=policy)
