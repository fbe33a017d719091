"""The controller's state directory: what its store has made durable, and when.

Stands in for the recovery and the writing thread of the real store (escra_controller/storage), which has
tests on real disks.  A commit takes a while, and is reported a while after it is durable: a crash may come
before, between and after.  On a full disk the store does what the real one does: it puts itself aside,
says that everything is done, and leaves a mark for the next start, until it can write again.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from escra_controller.storage.values import Changes, Known, Meta, Recovered
from tests.simulation import edges

if TYPE_CHECKING:
    from tests.simulation.hosts import ControllerHost

LOST = "the store could not be written and was set aside"
RETRY_S = 1.0
Done = Callable[[], None]


@dataclass(slots=True)
class StateDisk:
    """``durable`` is what a restart would find, None when the store was set aside."""

    durable: Known | None = field(default_factory=Known)
    full: bool = False


def recover(directory: object, tell: Callable[[str, str], None], limits: object) -> tuple[Any, Recovered]:
    home: ControllerHost = edges.home()
    disk = home.state
    lost = "" if disk.durable is not None else LOST
    known = copy(disk.durable or Known())
    clean = known.meta.clean
    known.started(lost)
    if disk.full:
        disk.durable = None
    else:
        disk.durable = copy(known)
    meta = known.meta
    return known, Recovered(
        meta.generation, meta.starts, meta.promoted, clean, dict(known.bounds), dict(known.sizes), meta.lost
    )


class SimulatedWorker:
    """As escra_controller.storage.worker.Worker."""

    dropped = 0

    def __init__(self, known: Known, loop: asyncio.AbstractEventLoop, limits: object) -> None:
        self._known, self._loop = known, loop
        self._disk: StateDisk = edges.home().state
        self._clockwork = edges.here().clockwork
        self._changes = Changes()
        self._waiting: list[Done] = []
        self._busy = False
        self.trouble = ""

    def put(self, changes: Changes, done: Done | None = None) -> None:
        self._changes.merge(changes)
        if done is not None:
            self._waiting.append(done)
        if not self._busy:
            self._busy = True
            self._loop.call_later(self._disk_delay_s(), self._commit)

    def append(self, *rows: Iterable[object], **more: Iterable[object]) -> None:
        # Audit and history have no part in any promise.
        for each in (*rows, *more.values()):
            for _ in each:
                pass

    def close(self, patience_s: float) -> bool:
        return True

    def _disk_delay_s(self) -> float:
        rng = self._clockwork.rng
        return rng.uniform(0.05, 0.6) if rng.random() < 0.1 else rng.uniform(0.001, 0.015)

    def _commit(self) -> None:
        changes, self._changes = self._changes, Changes()
        waiting, self._waiting = self._waiting, []
        self._known.apply(changes)
        if self._disk.full:
            # Stale bounds would be a lie after the next crash.
            self._disk.durable, self.trouble = None, LOST
            self._loop.call_later(RETRY_S, self._write_again)
        elif not self.trouble:
            self._disk.durable = copy(self._known)
        self._loop.call_later(self._disk_delay_s(), self._report, waiting)

    def _report(self, waiting: list[Done]) -> None:
        for done in waiting:
            done()
        self._busy = bool(self._changes) or bool(self._waiting)
        if self._busy:
            self._loop.call_later(self._disk_delay_s(), self._commit)

    def _write_again(self) -> None:
        """A new store with all that is known."""
        if not self.trouble:
            return
        if self._disk.full:
            self._loop.call_later(RETRY_S, self._write_again)
        else:
            self._disk.durable, self.trouble = copy(self._known), ""


def copy(known: Known) -> Known:
    return Known(replace(known.meta) if known.meta else Meta(), dict(known.bounds), dict(known.sizes))
