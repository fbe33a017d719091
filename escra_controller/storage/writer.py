"""What the store does when its file can be written, and when it cannot.

The one rule: whoever was told "this is durable" may rely on it that no later start reads less.
So before anything is reported that could not be written, the file that says less is set aside.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from escra_controller.events import Decision
from escra_controller.storage.database import Database, StoreBusy, StoreError, StoreFull, create
from escra_controller.storage.setaside import set_aside
from escra_controller.storage.values import Changes, ContainerRow, HistoryRow, Known

# A lock held for longer is trouble; shorter ones are somebody looking.
BUSY_TROUBLE_S = 2.0

Level = Literal["info", "warning", "error"]
News = Callable[[Level, str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """``waiting_rows`` bounds the audit's queue, ``retry_s`` paces the attempts to make a new store."""

    audit_rows: int = 200_000
    history_s: float = 7 * 86400.0
    waiting_rows: int = 10_000
    retry_s: float = 30.0
    busy_s: float = 0.25


class Writer:
    """For one thread at a time.  ``tell`` hears once of each change between well and not well."""

    def __init__(
        self, path: Path, known: Known, database: Database | None, tell: News, limits: Limits
    ) -> None:
        """``database`` holds what is known; without it there must be no file under its name."""
        self.dropped = 0
        self._path = path
        self._known = known
        self._unsaved = Changes()
        self._database = database
        self._tell = tell
        self._limits = limits
        self._retry_at = self._made_at = -float("inf")
        self._append_at = -float("inf")  # no audit before that: the disk was full
        self._busy_since: float | None = None
        self._failure = self._audit_failure = ""
        # Why the old file, which says less than is known, still has its name; "" when it has not.
        self.in_the_way = ""

    @property
    def trouble(self) -> str:
        """What is not well; "" when all is."""
        if not self._failure or self._database is not None:
            return self._failure or self._audit_failure
        pace = f"every {self._limits.retry_s:g} s"
        if self.in_the_way:
            return (
                f"{self._failure}; the file cannot be set aside either ({self.in_the_way}), so nothing "
                f"grows above what it says; both are tried again {pace}"
            )
        return f"{self._failure}; control goes on without a store, and a new one is tried {pace}"

    @property
    def retry_due(self) -> bool:
        return self._database is None and time.monotonic() >= self._retry_at

    @property
    def durable(self) -> bool:
        """Whether all that is known is on disk."""
        return self._database is not None and not self._unsaved

    def save(self, changes: Changes) -> bool:
        """Whether ``changes``, and all before, can be reported; when not, call again."""
        self._known.apply(changes)
        self._unsaved.merge(changes)
        if self.retry_due:
            self._start_anew()
        if self._database is not None and self._unsaved:
            try:
                self._save_with_room(self._database)
            except StoreBusy as error:
                self._busy(error)
                return False
            except StoreError as error:
                self.give_up(error)
            else:
                self._unsaved = Changes()
                self._well()
        return not self.in_the_way

    def record(
        self,
        decisions: Sequence[Decision],
        history: Sequence[HistoryRow],
        containers: Sequence[ContainerRow] = (),
    ) -> bool:
        """Append to audit and history, or count what is lost; False when it should be tried again."""
        if self._database is None or time.monotonic() < self._append_at:
            self.drop(len(decisions), self._failure)
            return True
        since = time.time() - self._limits.history_s
        try:
            self._database.record(decisions, history, self._limits.audit_rows, since, containers)
        except StoreBusy as error:
            self._busy(error)
            return False
        except StoreFull as error:
            # No reason to give the file up: bounds may still fit, they go where older ones were.
            self._append_at = time.monotonic() + self._limits.retry_s
            self.drop(len(decisions), str(error))
        except StoreError as error:
            self.give_up(error)
            return False
        else:
            self._well()
            if self._audit_failure:
                self._tell(
                    "info", f"the audit is written again; {self.dropped} rows of it were dropped so far"
                )
                self._audit_failure = ""
        return True

    def drop(self, rows: int, why: str) -> None:
        """Count audit rows that are lost; said once until the audit is written again."""
        self.dropped += rows
        if rows and not self._audit_failure:
            self._audit_failure = f"audit rows are dropped: {why}"
            self._tell("warning", self._audit_failure)

    def give_up(self, error: StoreError) -> None:
        """Do without the file; a new one takes its place as soon as that works."""
        self.close()
        self._failure = str(error)
        # A file that fails as soon as it is made must not be made in a loop.
        self._retry_at = self._made_at + self._limits.retry_s
        self._leave_stale()
        if self.retry_due:
            self._start_anew()
        if self._database is None:
            self._tell("error", self.trouble)

    def retry_now(self) -> None:
        """Do not wait for the next attempt."""
        self._retry_at = -float("inf")

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _start_anew(self) -> None:
        """A new file with all that is known."""
        self._retry_at = time.monotonic() + self._limits.retry_s
        if self.in_the_way:
            self._leave_stale()
        if self.in_the_way:
            return
        try:
            create(self._path, self._known)
            self._database = Database(self._path, self._limits.busy_s)
        except (StoreError, OSError) as error:
            # It may have been made all the same, and would soon say less than is known.
            self._leave_stale()
            if not self._failure:
                self._failure = explain(error)
                self._tell("error", self.trouble)
            return
        self._made_at = time.monotonic()
        self._unsaved = Changes()
        if self._failure:
            # Said before it can be seen that all is well.
            news = f"a new {self._path} was started with all that is known; before: {self._failure}"
            self._tell("warning", news)
            self._failure = ""

    def _leave_stale(self) -> None:
        """See that no start reads less than is known."""
        self.in_the_way = ""
        try:
            set_aside(self._path)
        except OSError as error:
            self.in_the_way = explain(error)

    def _save_with_room(self, database: Database) -> None:
        try:
            database.save(self._unsaved)
        except StoreFull:
            database.make_room()
            database.save(self._unsaved)

    def _busy(self, error: StoreBusy) -> None:
        now = time.monotonic()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if not self._failure and now - self._busy_since >= BUSY_TROUBLE_S:
            self._failure = (
                f"{error}: another program holds a lock on the store; nothing is written until it lets go"
            )
            self._tell("error", self._failure)

    def _well(self) -> None:
        self._busy_since = None
        if self._failure:
            self._tell("info", f"{self._path} is written again")
            self._failure = ""


def explain(error: Exception) -> str:
    """Without Python's decoration."""
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
