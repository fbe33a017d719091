"""Keeps the drop-in files of all units near the limits in force; never in the way of the tick."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from escra_agent.cgroupfs import Cgroup
from escra_agent.originals import Original
from escra_agent.tracked import Tracked
from escra_agent.unitfiles import UnitFiles
from escra_agent.unitproperties import Properties, UnitPlan, parse, properties, render, unit_of
from escra_common.errors import EscraError

log = structlog.get_logger()

AGAIN_S = 10.0


class UnitFileError(EscraError):
    """A file beside a unit stays where it is."""


class UnitFollower:
    """Does nothing without systemd, or where it is turned off."""

    def __init__(self, tracked: Mapping[int, Tracked], files: UnitFiles, *, enabled: bool = True) -> None:
        self._tracked = tracked
        self._files = files
        self._enabled = enabled and files.available()
        self._plans: dict[str, UnitPlan] = {}
        # Of units that may start again and would then come with what their file said.
        self._records: dict[str, Properties] = {}
        self._queue: dict[str, str | None] = {}
        self._writing: asyncio.Future[list[tuple[str, OSError]]] | None = None
        self._thread = ThreadPoolExecutor(1, "units")
        self._retry_at = float("-inf")
        self._trouble = ""

    def start(self) -> None:
        """Learn what an earlier agent left; before the first container is taken in."""
        if not self._enabled:
            return
        try:
            left = self._files.read_all()
        except OSError as error:
            self._failed([("all", error)])
            return
        for unit, text in left.items():
            self._plans[unit] = UnitPlan()
            if (said := parse(text)) is not None:
                self._remember(unit, said)

    def original_behind(self, cgroup: Cgroup, boot_id: str) -> Original | None:
        """What a unit's limits were before Escra, when it started anew with what our file said."""
        record = self._records.get(unit_of(cgroup.path) or "")
        if record is None:
            return None
        limit, group = cgroup.read_limit(), cgroup.memory_group
        original = record.original_behind(limit)
        memory = None if group is None else record.original_memory_behind(group.read_limit())
        if original is None and memory is None:
            return None
        return Original(cgroup.key, "", "", cgroup.path, boot_id, original or limit, cgroup.paths, memory)

    def tick(self, *, claimed: bool = True) -> None:
        """Write what is due, and remove the files of units that are not managed any more.

        ``claimed`` is false as long as not all containers may have been found.
        """
        now = time.monotonic()
        if not self._enabled or now < self._retry_at:
            return
        managed = set()
        for tracked in self._tracked.values():
            if (unit := _unit(tracked)) is not None:
                managed.add(unit)
                self._look(unit, tracked, now)
        if claimed:
            for unit in self._plans.keys() - managed:
                del self._plans[unit]
                self._queue[unit] = None
        self._write()

    def look(self, keys: Iterable[int]) -> None:
        """The limits of these have just changed."""
        now = time.monotonic()
        if not self._enabled or now < self._retry_at:
            return
        for key in keys:
            tracked = self._tracked.get(key)
            if tracked is not None and (unit := _unit(tracked)) is not None:
                self._look(unit, tracked, now)
        self._write()

    async def close(self, *, remove: bool) -> None:
        """Finish what is under way; ``remove``: and leave no file."""
        if remove:
            self._queue |= dict.fromkeys(self._plans)
        if self._enabled:
            self._write()
        await self.flush()
        self._thread.shutdown()

    async def flush(self) -> None:
        """Until what was due is on disk, or has failed."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
            # Its callback may have begun the next one.
            await asyncio.sleep(0)

    def _look(self, unit: str, tracked: Tracked, now: float) -> None:
        plan = self._plans.get(unit)
        if plan is None:
            plan = self._plans[unit] = UnitPlan()
        memory = tracked.memory
        wish = properties(
            tracked.plan.stands_for,
            memory.plan.wanted if memory else None,
            tracked.original,
            memory.original if memory else None,
            banded=memory is not None and memory.group.banded,
        )
        if plan.due(wish, now):
            plan.say(wish, now)
            self._remember(unit, wish)
            self._queue[unit] = render(unit, wish)

    def _remember(self, unit: str, said: Properties) -> None:
        # A scope never starts again under its name, or is given its limits by Docker when it does.
        if not unit.endswith(".scope"):
            self._records[unit] = said

    def _write(self) -> None:
        if self._queue and self._writing is None:
            batch, self._queue = self._queue, {}
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._apply, batch)
            self._writing.add_done_callback(self._written)

    def _written(self, future: "asyncio.Future[list[tuple[str, OSError]]]") -> None:
        self._writing = None
        if not future.cancelled():
            self._failed(future.result())
            self._write()

    def _apply(self, batch: Mapping[str, str | None]) -> list[tuple[str, OSError]]:
        """In the thread; what failed."""
        failures = []
        for unit, text in batch.items():
            try:
                if text is None:
                    self._files.remove(unit)
                else:
                    self._files.write(unit, text)
            except OSError as error:
                failures.append((unit, error))
        return failures

    def _failed(self, failures: list[tuple[str, OSError]]) -> None:
        """Said once, tried again later; the limits themselves do not depend on it."""
        trouble = ""
        for unit, error in failures:
            trouble = error.strerror or str(error)
            # Also one whose file is to be removed: the next tick finds that nobody manages it.
            self._plans.setdefault(unit, UnitPlan()).forget()
            self._retry_at = time.monotonic() + AGAIN_S
        if trouble and trouble != self._trouble:
            log.warning(
                "systemd units do not follow",
                kind="write_failed",
                reason=f"cannot write {failures[0][0]}.d: {trouble}; a daemon-reload puts old limits back",
            )
        self._trouble = trouble


def remove_all(files: UnitFiles) -> int:
    """For `escra-agent restore`: how many there were.  Raises UnitFileError."""
    try:
        units = files.read_all() if files.available() else {}
        for unit in units:
            files.remove(unit)
    except OSError as error:
        raise UnitFileError(f"cannot remove the files beside systemd's units: {error}") from error
    return len(units)


def _unit(tracked: Tracked) -> str | None:
    """Of a container whose limits are ours at the moment."""
    memory = tracked.memory
    managed = tracked.plan.wanted is not None or (memory is not None and memory.plan.wanted is not None)
    return unit_of(tracked.cgroup.path) if managed else None
