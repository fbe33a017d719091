"""Where containers come from: Docker's labels and the configured cgroups."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from escra_agent.cgroupfs import Cgroup
from escra_agent.config import CgroupConfig
from escra_agent.docker import Changed, DockerContainer, DockerWatcher, Started, Stopped, Synced
from escra_agent.errors import CgroupGone
from escra_agent.hierarchy import Hierarchy
from escra_agent.labels import LabelError, Labels, parse_labels
from escra_agent.roster import Roster
from escra_agent.tracked import Candidate, Tracked
from escra_common.errors import EscraError
from escra_common.messages import MemoryLimit

log = structlog.get_logger()

# A configured cgroup may come and go with its service; a look costs about 20 us.
SCAN_S = 0.2
# An entry that cannot be used is looked at again, in case somebody mends it, but said once.
_PREFIX = "cgroup:"


class DockerSource:
    def __init__(self, roster: Roster, hierarchy: Hierarchy, socket: str) -> None:
        self._roster = roster
        self._hierarchy = hierarchy
        self._watcher = DockerWatcher(f"unix://{socket}", on_trouble=_trouble)
        self._told: dict[str, DockerContainer] = {}

    async def run(self, synced: Callable[[], None]) -> None:
        """Follow Docker until cancelled; ``synced`` is called whenever the full picture is known."""
        async with contextlib.aclosing(self._watcher.watch()) as events:
            async for event in events:
                match event:
                    case Synced(containers):
                        await self._resync(containers)
                        synced()
                    case Started(container):
                        await self._start(container)
                    case Stopped(container_id):
                        await self._stop(container_id)
                    case Changed(container):
                        await self._change(container)

    async def _resync(self, containers: list[DockerContainer]) -> None:
        running = {container.id for container in containers}
        for container_id in [i for i in self._told if i not in running]:
            await self._stop(container_id)
        new = [c for c in containers if c.id not in self._told]
        await self._roster.attach(self._candidate(c) for c in new)
        self._told.update({c.id: c for c in new})
        for container in containers:
            if container != self._told[container.id]:
                await self._change(container)

    async def _start(self, container: DockerContainer) -> None:
        # The same id with another process is another incarnation, in another cgroup.
        await self._stop(container.id)
        self._told[container.id] = container
        await self._roster.attach([self._candidate(container)])

    async def _stop(self, container_id: str) -> None:
        self._told.pop(container_id, None)
        if tracked := self._roster.find(container_id):
            await self._roster.detach(tracked)

    async def _change(self, container: DockerContainer) -> None:
        told = self._told.get(container.id)
        tracked = self._roster.find(container.id)
        if told is None or tracked is None or told.pid != container.pid:
            await self._start(container)
            return
        self._told[container.id] = container
        # `docker update` says what the limit should be without us: that is the original now.
        cpu = container.cpu if container.cpu != told.cpu else None
        memory = _memory_limit(container, tracked) if _memory(container) != _memory(told) else None
        await self._roster.change(tracked, self._candidate(container), cpu, memory)

    def _candidate(self, container: DockerContainer) -> Candidate:
        labels, problem = labels_of(container)
        hierarchy, pid = self._hierarchy, container.pid
        return Candidate(container.id, container.name, lambda: hierarchy.open_pid(pid), labels, problem)


def labels_of(container: DockerContainer) -> tuple[Labels, str]:
    """What its labels ask for, and why they cannot be followed, if so; then only its application is known."""
    try:
        return parse_labels(container.labels), ""
    except LabelError as error:
        return Labels(app=container.labels.get("escra.app", "")[:255]), str(error)


class CgroupSource:
    def __init__(self, roster: Roster, hierarchy: Hierarchy) -> None:
        self._roster = roster
        self._hierarchy = hierarchy
        self._entries: dict[str, CgroupConfig] = {}
        self._said: dict[str, str] = {}
        self._waited: set[str] = set()
        self._scanning = asyncio.Lock()
        # Otherwise a scan can find nothing.
        self._missing = asyncio.Event()
        roster.on_departure = self._missing.set

    async def configure(self, entries: list[CgroupConfig]) -> None:
        """What is not listed any more is given back; what is listed otherwise is taken in anew."""
        wanted = {cgroup_id(entry.path): entry for entry in entries}
        async with self._scanning:  # whom a scan is taking in is among the tracked after it
            leaving = self._entries.items() - wanted.items()
            # At once: giving back may take seconds, and no scan must take them in again meanwhile.
            self._entries = dict(self._entries.items() & wanted.items())
        for container_id, _ in leaving:
            if tracked := self._roster.find(container_id):
                await self._roster.detach(tracked, give_back=True)
        self._entries = wanted
        self._missing.set()
        self._said.clear()
        await self.scan()

    async def run(self) -> None:
        while True:
            await self._missing.wait()
            await asyncio.sleep(SCAN_S)
            await self.scan()

    async def scan(self) -> None:
        """Take in the configured cgroups that exist and are not looked after yet."""
        async with self._scanning:
            known = {tracked.candidate.id for tracked in self._roster.tracked.values()}
            found = []
            for container_id, entry in self._entries.items():
                if container_id not in known and (cgroup := self._try(container_id, entry)):
                    found.append(Candidate(container_id, entry.title, _opened(cgroup), entry.labels()))
            if found:
                await self._roster.attach(found)
            if not self._entries.keys() - {t.candidate.id for t in self._roster.tracked.values()}:
                self._missing.clear()

    def _try(self, container_id: str, entry: CgroupConfig) -> Cgroup | None:
        try:
            cgroup = self._hierarchy.open(entry.path)
        except EscraError as error:
            # Not there yet is no trouble; whatever else it is, is said once.
            if not isinstance(error, CgroupGone) and self._said.get(container_id) != str(error):
                self._said[container_id] = str(error)
                log.warning("cgroup left alone", container=entry.title, reason=str(error))
            return None
        if cgroup.awaits_memory and container_id not in self._waited:
            # On v1 the hierarchies of a new cgroup come one after the other: at the next scan all are there.
            self._waited.add(container_id)
            cgroup.close()
            return None
        self._waited.discard(container_id)
        return cgroup


def cgroup_id(path: str) -> str:
    return _PREFIX + path.strip("/")


def _opened(cgroup: Cgroup) -> Callable[[], Cgroup]:
    return lambda: cgroup


def _memory(container: DockerContainer) -> tuple[int | None, int | None]:
    return container.memory_bytes, container.memory_swap_bytes


def _memory_limit(container: DockerContainer, tracked: Tracked) -> MemoryLimit | None:
    """What Docker means, as this version of cgroups says it: v2 counts swap by itself."""
    if tracked.memory is None:
        return None
    memory, total = container.memory_bytes, container.memory_swap_bytes
    if memory is None:
        total = None
    if not tracked.memory.group.banded:
        return MemoryLimit(memory, None, total)
    swap = None if memory is None or total is None else max(0, total - memory)
    return MemoryLimit(memory, tracked.memory.original.high_bytes, swap)


def _trouble(line: str) -> None:
    log.warning("docker", reason=line)
