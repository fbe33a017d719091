"""The agent, put together: sources, tick, link and signals around one roster."""

import asyncio
import contextlib
import gc
from collections.abc import Iterable
from pathlib import Path

import psutil
import structlog

from escra_agent.caps import HostCaps
from escra_agent.config import AgentConfig, load_config
from escra_agent.dialing import Dialer
from escra_agent.fallback import Fallback
from escra_agent.hierarchy import Hierarchy
from escra_agent.keeper import BOUNDARY_POLL_S, Keeper
from escra_agent.link import Link, Order
from escra_agent.lookout import Lookout
from escra_agent.memorycut import Cutter
from escra_agent.memorykeeper import MemoryKeeper
from escra_agent.originals import BOOT_ID, OriginalsStore, complete_all, disarm_all
from escra_agent.parts import Parts
from escra_agent.promptness import Promptness
from escra_agent.resting import Resting
from escra_agent.roster import Roster
from escra_agent.sources import CgroupSource, DockerSource
from escra_agent.standing import StandingFile, lease_clock_s
from escra_agent.unitfiles import UnitFiles
from escra_agent.unitfollower import UnitFollower
from escra_common import __version__
from escra_common.channel import Heartbeats
from escra_common.errors import EscraError
from escra_common.messages import (
    Container,
    DenyMemory,
    Heartbeat,
    Hello,
    Message,
    Release,
    SetLimits,
    SetMemory,
)
from escra_common.renewal import Renewal
from escra_common.service import Watchdog, on_signals, ready, status
from escra_common.session import hello
from escra_common.ticker import Ticker
from escra_common.tls import Credentials

log = structlog.get_logger()

# A controller answers a need for memory within this time, mostly.
ANSWER_S = 0.002
# So long Docker may take to say what runs, before what nobody else claims is given back.
SOURCES_S = 30.0
# A disk that was full may have room again.
RECORD_AGAIN_S = 5.0
# What a reload does not change.
FIXED_KEYS = (
    "controller",
    "host",
    "interval",
    "state_dir",
    "tls",
    "docker",
    "memory",
    "realtime",
    "systemd",
    "log_level",
)


class Totals(Heartbeats):
    """The agent's counters since it started, for its heartbeat."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def __call__(self) -> Heartbeat:
        return self._agent.totals()


class Agent:
    def __init__(self, path: Path, config: AgentConfig) -> None:
        self._path = path
        self._config = config
        self._hierarchy = Hierarchy.detect()
        self._store = OriginalsStore(config.originals_path)
        self._cutter = Cutter()
        self._roster = Roster(
            self._hierarchy,
            self._store,
            self._send,
            self._cutter,
            manage_memory=config.memory.enabled,
            caps=_host_caps(config),
            observing=config.mode == "observe",
        )
        self._boot_id = BOOT_ID.read_text().strip()
        self._parts = Parts(config.parts_path, self._boot_id)
        self._keeper = Keeper(self._roster, self._send, self._parts)
        self._boundary_wanted = asyncio.Event()
        self._lookout = Lookout(self._roster, self._keeper, self._boundary_wanted.set, lending=config.lending)
        self._memory = MemoryKeeper(self._roster, self._cutter, self._send)
        self._resting = Resting(self._roster.tracked)
        self._units = UnitFollower(self._roster.tracked, UnitFiles(), enabled=config.systemd.follow)
        self._roster.original_behind = self._units.original_behind
        self._all_found = asyncio.Event()
        self._cgroups = CgroupSource(self._roster, self._hierarchy)
        self._standing = StandingFile(config.state_path / "standing.json", self._boot_id)
        credentials = Credentials(config.tls, server=False) if config.tls else None
        self._link = Link(
            self._standing,
            Dialer(config.controller, self._greeting(), self._standing.standing, credentials),
            Totals(self),
            self._snapshot,
            self._obey,
            self._memory.link,
        )
        self._renewal = Renewal(credentials, self._link.certificates)
        self._fallback = Fallback(self._standing.standing, self._roster, self._keeper, self._memory)
        self._promptness = Promptness(config.realtime)
        self._ticker = Ticker(config.interval)
        self._watchdog = Watchdog()
        self._lookout_wanted = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._docker_known = asyncio.Event()
        # By container: the one under way, and the last order given meanwhile.
        self._releases: dict[int, asyncio.Task[None]] = {}
        self._release_next: dict[int, Release] = {}

    async def run(self) -> None:
        """Until a signal ends it; READY is said once the containers are known and the tick runs."""
        for line in self._store.load():
            log.warning("original limits", reason=line)
        for line in disarm_all(self._store, self._hierarchy):
            log.warning("OOM killer still off", reason=line)
        for line in complete_all(self._store, self._hierarchy, self._parts.found()):
            log.warning("less than its limit is in force", reason=line)
        self._parts.begin()
        if self._standing.trouble:
            log.warning("leadership", reason=self._standing.trouble)
        self._memory.start()
        self._units.start()
        try:
            await self._cgroups.configure(self._config.cgroup)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(on_signals(self._reload_wanted.set))
                tasks.create_task(self._tick())
                tasks.create_task(self._write_at_boundaries())
                tasks.create_task(self._look_out())
                tasks.create_task(self._cgroups.run())
                tasks.create_task(self._follow_docker())
                tasks.create_task(self._reload())
                tasks.create_task(self._follow_controller())
                tasks.create_task(self._renewal.run())
                tasks.create_task(self._restore_unclaimed())
                tasks.create_task(self._record_again())
                log.info("agent started", version=__version__, controller=str(self._config.controller))
                ready()
        finally:
            self._promptness.close()
            self._link.close()
            await self._keeper.finish()
            self._memory.close()
            await self._cutter.close()
            restore = self._config.fallback.on_stop == "restore"
            await self._units.close(remove=restore)
            if restore:
                await self._roster.restore_everything()
            self._roster.close()
            self._resting.close()
            self._parts.close()

    def totals(self) -> Heartbeat:
        return Heartbeat(
            ticks=self._ticker.count,
            late_ticks=self._ticker.late,
            dropped_samples=self._link.dropped_samples,
            drift_repairs=self._keeper.drift_repairs + self._memory.drift_repairs,
            writes=self._keeper.writes,
            refill_usec=self._keeper.refill_usec,
            lent_usec=self._lookout.lent_usec,
            memory_writes=self._memory.writes,
            sent_usec=round(lease_clock_s() * 1e6),
            terms=self._link.terms,
            hosts=self._link.hosts,
            unmet=self._link.unmet,
        )

    # ---- tasks ---------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            now = await self._ticker.next()
            self._resting.wake()
            if self._memory.tick():
                # Somebody may be waiting for what it asked for: what only counts comes after the answer.
                await asyncio.sleep(ANSWER_S)
            self._keeper.tick()
            self._resting.settle()
            gone = self._keeper.gone + self._memory.gone
            self._keeper.gone, self._memory.gone = [], []
            if self._config.alarms and self._lookout.watch(self._keeper.brisk):
                self._lookout_wanted.set()
            self._keeper.brisk = []
            for tracked in gone:
                self._parts.clear(tracked.key)
                await self._roster.detach(tracked)
            self._watchdog.ping(now)
            if self._ticker.count % 10 == 0:
                self._units.tick(claimed=self._all_found.is_set())
                self._roster.gate.tick()
                self._send(self.totals())
                self._fallback.tick(lease_clock_s(), linked=self._link.up)
                status(self._summary())

    async def _write_at_boundaries(self) -> None:
        wait_s: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._boundary_wanted.wait()
                    self._boundary_wanted.clear()
                    await asyncio.sleep(BOUNDARY_POLL_S)
            wait_s = self._keeper.poll_boundaries()

    async def _look_out(self) -> None:
        while True:
            await self._lookout_wanted.wait()
            if (wait_s := self._lookout.look()) is None:
                self._lookout_wanted.clear()
            else:
                await asyncio.sleep(wait_s)

    async def _follow_docker(self) -> None:
        if self._config.docker.enabled:
            source = DockerSource(self._roster, self._hierarchy, self._config.docker.socket)
            await source.run(self._docker_known.set)
        self._docker_known.set()

    async def _restore_unclaimed(self) -> None:
        """Only when all sources have spoken is it known whom nobody claims; a dead one is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOURCES_S):
                await self._docker_known.wait()
        await self._roster.restore_unclaimed()
        self._all_found.set()
        # What is there by now stays: the collector need not go through it again and again.
        gc.collect()
        gc.freeze()
        self._promptness.begin()

    async def _follow_controller(self) -> None:
        """What a snapshot does not list does not exist: none is sent before all that was limited is known."""
        if self._roster.unclaimed:
            await self._all_found.wait()
        await self._link.run()

    async def _record_again(self) -> None:
        while True:
            await asyncio.sleep(RECORD_AGAIN_S)
            await self._roster.record_again()

    async def _reload(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            self._renewal.renew()
            try:
                config = load_config(self._path)
            except EscraError as error:
                log.error(
                    "configuration refused, the running one stays", kind="config_refused", reason=str(error)
                )
                continue
            fixed = [name for name in FIXED_KEYS if getattr(config, name) != getattr(self._config, name)]
            self._config = config
            self._roster.gate.reload(_host_caps(config))
            self._lookout.lending = config.lending
            await self._roster.observe(config.mode == "observe")
            await self._cgroups.configure(config.cgroup)
            log.info("configuration reloaded", kind="config_reloaded")
            if fixed:
                log.warning("these keys change at the next restart", reason=", ".join(fixed))

    # ---- the link's questions ------------------------------------------------------

    def _send(self, message: Message) -> None:
        self._link.send(message)

    def _snapshot(self) -> Iterable[Container]:
        for tracked in self._roster.tracked.values():
            tracked.new_controller()
            yield tracked.describe()

    async def _obey(self, order: Order) -> None:
        match order:
            case SetLimits():
                self._keeper.obey(order)
                self._boundary_wanted.set()
            case SetMemory():
                self._memory.obey(order)
                self._units.look(single.key for single in order.orders)
            case DenyMemory():
                self._memory.deny(order)
            case Release():
                self._release_next[order.key] = order
                if order.key not in self._releases:
                    self._releases[order.key] = asyncio.create_task(self._release(order.key))

    async def _release(self, key: int) -> None:
        """Giving memory back may take seconds; others must not wait for their orders."""
        try:
            while (order := self._release_next.pop(key, None)) is not None:
                await self._keeper.release(order)
        finally:
            del self._releases[key]

    def _greeting(self) -> Hello:
        return hello(
            "agent",
            self._config.host_name,
            boot_id=self._boot_id,
            cpus=psutil.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            cgroup_version=self._hierarchy.version,
        )

    def _summary(self) -> str:
        managed = sum(t.plan.wanted is not None for t in self._roster.tracked.values())
        link = "up" if self._link.up else "away"
        return (
            f"containers: {len(self._roster.tracked)}, managed: {managed}, controller: {link}, "
            f"late ticks: {self._ticker.late}"
        )


def _host_caps(config: AgentConfig) -> HostCaps:
    return HostCaps(config.caps, 1000 * (psutil.cpu_count() or 1), psutil.virtual_memory().total)
