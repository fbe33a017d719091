"""The controller's state on disk, written by one thread beside the event loop.

Nothing here waits for the disk but the start, the end and the two queries: what must be durable is queued,
merged with what else is waiting, committed, and then reported.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from escra_controller.bounds import Bound
from escra_controller.events import Decision
from escra_controller.storage.archive import read_decisions, read_history
from escra_controller.storage.database import StoreDamaged, StoreError
from escra_controller.storage.recovery import NAME, recover
from escra_controller.storage.values import (
    AS_CONFIGURED,
    Changes,
    ContainerRow,
    HistoryRow,
    Meta,
    Place,
    Recovered,
    Size,
)
from escra_controller.storage.worker import Done, Worker, run_on
from escra_controller.storage.writer import Level, Limits, News

Answer = TypeVar("Answer")


class Store:
    """Made by ``open``.  Its methods are for one thread, except for the queries."""

    def __init__(self, path: Path, worker: Worker, recovered: Recovered) -> None:
        self.path = path
        self._worker = worker
        self._meta = Meta(recovered.generation, recovered.starts, recovered.promoted, lost=recovered.lost)
        self._sizes = dict(recovered.sizes)

    @classmethod
    def open(
        cls,
        directory: Path,
        on_news: News,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        limits: Limits | None = None,
    ) -> tuple["Store", Recovered]:
        """Recover, count the start, and have both on disk (or be in trouble) when this returns.

        ``on_news(level, sentence)`` and every ``done`` run on ``loop``, or without one on the store's
        thread.  Raises StoreLocked when another program uses the store, and StoreError when a file is
        in the way that can be neither used nor moved.
        """
        limits = limits or Limits()

        def tell(level: Level, sentence: str) -> None:
            run_on(loop, lambda: on_news(level, sentence))

        writer, recovered = recover(directory, tell, limits)
        return cls(directory / NAME, Worker(writer, loop, limits), recovered), recovered

    # ---- what must be durable --------------------------------------------------------

    def secure(self, bounds: Mapping[Place, Bound], done: Done) -> None:
        """Keep these bounds by host and application; ``done`` when a crash can no longer lose them.

        Reports come in the order of the calls.  A bound of nothing forgets that host and application.
        """
        self._worker.put(Changes(bounds=dict(bounds)), done)

    def size(self, app: str, cpu_milli: int | None = None, memory_bytes: int | None = None) -> None:
        """Keep Ω as a person set it; None leaves that part as it is."""
        old = self._sizes.get(app, AS_CONFIGURED)
        new = Size(
            old.cpu_milli if cpu_milli is None else cpu_milli,
            old.memory_bytes if memory_bytes is None else memory_bytes,
        )
        self._sizes[app] = new
        self._worker.put(Changes(sizes={app: new}))

    def forget_sizes(self) -> None:
        """The configuration counts again."""
        self._worker.put(Changes(sizes=dict.fromkeys(self._sizes, AS_CONFIGURED)))
        self._sizes.clear()

    def lead(self, generation: int, promoted: bool, done: Done | None = None) -> None:
        """Keep the generation of this leadership, and whether a person gave it."""
        self._meta = replace(self._meta, generation=generation, promoted=promoted)
        self._worker.put(Changes(self._meta), done)

    def nothing_is_lost(self) -> None:
        """What an earlier store knew matters no longer; say so once every host that held limits is known."""
        if self._meta.lost:
            self._meta = replace(self._meta, lost="")
            self._worker.put(Changes(self._meta))

    # ---- audit and history -----------------------------------------------------------

    def record(self, decisions: Iterable[Decision], offset_s: float) -> None:
        """Append to the audit; ``offset_s`` makes their clock's time unix time."""
        self._worker.append(decisions=[msgspec.structs.replace(d, at=d.at + offset_s) for d in decisions])

    def sample(self, rows: Iterable[HistoryRow] = (), containers: Iterable[ContainerRow] = ()) -> None:
        """Append to the history of applications and containers."""
        self._worker.append(history=rows, containers=containers)

    def decisions(
        self,
        app: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: int | None = None,
        limit: int = 1000,
    ) -> list[tuple[int, Decision]]:
        """See ``read_decisions``.  Waits for the disk: call it in a thread.

        The last second may be missing.
        """
        return self.read(lambda path: read_decisions(path, app, since, until, after, limit))

    def history(
        self,
        app: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 1000,
    ) -> list[HistoryRow]:
        """See ``read_history``.  Waits for the disk: call it in a thread."""
        return self.read(lambda path: read_history(path, app, since, until, limit))

    def read(self, how: Callable[[Path], Answer]) -> Answer:
        """Ask the archive, and say what its errors mean.  Waits for the disk: call it in a thread."""
        try:
            return how(self.path)
        except StoreDamaged as error:
            self._worker.suspect(error)
            raise
        except StoreError as error:
            raise StoreError(self.trouble or str(error)) from error

    # ---- how it is -------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """What is not well, for people; "" when all is."""
        return self._worker.trouble

    @property
    def dropped(self) -> int:
        """Rows of the audit that were lost since the start."""
        return self._worker.dropped

    def close(self, clean: bool, patience_s: float = 2.0) -> bool:
        """Write what waits; whether all that must be durable is.  Blocks for at most ``patience_s``.

        ``clean``: nothing will change any more, and the next start may rely on it.
        """
        if clean:
            self._meta = replace(self._meta, clean=True)
            self._worker.put(Changes(self._meta))
        return self._worker.close(patience_s)
