"""The thread that writes, and the queues before it."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from escra_controller.events import Decision
from escra_controller.storage.database import StoreError
from escra_controller.storage.values import Changes, ContainerRow, HistoryRow
from escra_controller.storage.writer import Limits, Writer

T = TypeVar("T")
Done = Callable[[], None]

# Audit and history are written in batches, so that bounds seldom wait for them.
APPEND_PACE_S = 1.0
APPEND_ROWS = 1000
# Between two attempts to write what must be durable; a locked database waits by itself besides.
AGAIN_S = 0.05
# How long something may wait for the disk before that is trouble.
LATE_S = 2.0


def run_on(loop: asyncio.AbstractEventLoop | None, call: Callable[[], None]) -> None:
    """On the loop, or without one right here."""
    if loop is None:
        call()
        return
    # A loop that is closed already has nobody left to tell.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


@dataclass(frozen=True, slots=True)
class Job:
    """What waited when the thread looked."""

    changes: Changes
    waiting: list[Done]
    damage: StoreError | None
    close_by: float | None


class Worker:
    """Everything but ``_run`` and what it calls is for other threads, and never waits for the disk."""

    def __init__(self, writer: Writer, loop: asyncio.AbstractEventLoop | None, limits: Limits) -> None:
        self._writer = writer  # the thread's alone, but for numbers and texts to read
        self._loop = loop
        self._limits = limits
        self._wake = threading.Condition()
        # Under the condition's lock, down to the next empty line.
        self._changes = Changes()
        self._waiting: list[Done] = []
        self._oldest: float | None = None  # since when something waits to be durable
        self._decisions: deque[Decision] = deque()
        self._history: deque[HistoryRow] = deque()
        self._containers: deque[ContainerRow] = deque()
        self._overflow = 0
        self._damage: StoreError | None = None
        self._close_by: float | None = None

        # The thread's alone.
        self._batch: tuple[list[Decision], list[HistoryRow], list[ContainerRow]] = ([], [], [])
        self._complete = False
        # A disk that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def put(self, changes: Changes, done: Done | None = None) -> None:
        with self._wake:
            self._changes.merge(changes)
            if done is not None:
                self._waiting.append(done)
            if self._oldest is None:
                self._oldest = time.monotonic()
            self._wake.notify()

    def append(
        self,
        decisions: Iterable[Decision] = (),
        history: Iterable[HistoryRow] = (),
        containers: Iterable[ContainerRow] = (),
    ) -> None:
        """Beyond ``waiting_rows`` the oldest are dropped."""
        with self._wake:
            self._decisions.extend(decisions)
            self._history.extend(history)
            self._containers.extend(containers)
            while len(self._decisions) > self._limits.waiting_rows:
                self._decisions.popleft()
                self._overflow += 1
            for rows in (self._history, self._containers):
                while len(rows) > self._limits.waiting_rows:
                    rows.popleft()

    def suspect(self, damage: StoreError) -> None:
        """A reader found the file damaged."""
        with self._wake:
            self._damage = damage
            self._wake.notify()

    def close(self, patience_s: float) -> bool:
        """Write what waits, for at most about ``patience_s``; whether all that must be durable is."""
        with self._wake:
            self._close_by = time.monotonic() + patience_s
            self._wake.notify()
        self._thread.join(patience_s)
        return self._complete

    @property
    def trouble(self) -> str:
        if trouble := self._writer.trouble:
            return trouble
        with self._wake:
            late_s = 0.0 if self._oldest is None else time.monotonic() - self._oldest
            closed = self._close_by is not None
        if not closed and not self._thread.is_alive():
            return "the thread that writes the store has ended, a fault of this program; restart it"
        if late_s < LATE_S:
            return ""
        return f"the store's disk has not answered for {late_s:.0f} s; nothing grows above what it says"

    @property
    def dropped(self) -> int:
        with self._wake:
            return self._writer.dropped + self._overflow

    # ---- in the thread ---------------------------------------------------------------

    def _run(self) -> None:
        owed: list[Done] = []
        settled = True
        append_at = time.monotonic() + APPEND_PACE_S
        while True:
            job = self._next(max(0.0, append_at - time.monotonic()) if settled else AGAIN_S)
            owed += job.waiting
            if job.damage is not None:
                self._writer.give_up(job.damage)
            if job.close_by is not None:
                self._writer.retry_now()
            settled = self._writer.save(job.changes)
            if settled:
                self._report(owed)
                owed = []
            more = False
            if job.close_by is not None or time.monotonic() >= append_at:
                more = self._append()
                append_at = time.monotonic() + (AGAIN_S if more else APPEND_PACE_S)
            if job.close_by is not None:
                if time.monotonic() >= job.close_by or (settled and not more):
                    break
                time.sleep(0.0 if settled else AGAIN_S)
        durable = self._writer.durable
        self._writer.close()
        self._complete = durable

    def _next(self, pause_s: float) -> Job:
        """What waits now, or after ``pause_s`` when nothing does."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._changes or self._waiting or self._damage or self._close_by, pause_s
            )
            job = Job(self._changes, self._waiting, self._damage, self._close_by)
            self._changes, self._waiting, self._damage = Changes(), [], None
            return job

    def _report(self, owed: list[Done]) -> None:
        with self._wake:
            if not self._changes and not self._waiting:
                self._oldest = None
            elif self._oldest is not None:
                self._oldest = time.monotonic()

        def report() -> None:
            for done in owed:
                done()

        if owed:
            run_on(self._loop, report)

    def _append(self) -> bool:
        """One batch of audit and history; whether there is more."""
        if not any(self._batch):
            with self._wake:
                self._batch = _take(self._decisions), _take(self._history), _take(self._containers)
                overflow, self._overflow = self._overflow, 0
            self._writer.drop(overflow, "they come faster than the disk takes them")
        if any(self._batch) and self._writer.record(*self._batch):
            self._batch = [], [], []
        with self._wake:
            return bool(any(self._batch) or self._decisions or self._history or self._containers)


def _take(queue: deque[T]) -> list[T]:
    return [queue.popleft() for _ in range(min(len(queue), APPEND_ROWS))]
