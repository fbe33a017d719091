"""The sqlite file: how it is made, checked and written, and what its errors mean.

A file under the store's own name is complete: it is written under another name and renamed.
So an empty or partial one is damage, never a beginning.

Nothing else in this process may open and close the file while sqlite has it open: that would
take sqlite's locks away (POSIX locks belong to the process, not to the descriptor).
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from escra_common.errors import EscraError
from escra_controller.bounds import Bound
from escra_controller.events import Decision
from escra_controller.storage.containerhistory import ContainerNames, add, age
from escra_controller.storage.tables import (
    APPLICATION_ID,
    SCHEMA,
    SCHEMA_VERSION,
    UPGRADES,
    audit_row,
    history_row,
    write,
)
from escra_controller.storage.values import Changes, ContainerRow, HistoryRow, Known, Meta, Size

# quick_check reads 40 MB, a full audit, in 33 ms when it is in memory; a cold disk needs longer.
_QUICK_BYTES = 128 << 20

# Rows that one transaction removes at most: it must not keep bounds waiting.
PRUNE_BATCH = 2000


class StoreError(EscraError):
    """The store, or a part of it, cannot be used."""


class StoreBusy(StoreError):
    """Another connection holds a lock on it."""


class StoreFull(StoreError):
    """What is to be written does not fit on the disk."""


class StoreDamaged(StoreError):
    """What is in the file is not what was written to it."""


def connect(path: Path, mode: str, busy_s: float) -> sqlite3.Connection:
    """``mode`` is sqlite's: ``ro``, ``rw`` or ``rwc``; nothing is read yet, so hardly anything can fail."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,  # transactions begin and end where the code says so
        check_same_thread=False,
    )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """sqlite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        # A misuse of the module (a closed connection) has no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
        name = getattr(error, "sqlite_errorname", "SQLITE_MISUSE")
        kinds = {
            sqlite3.SQLITE_BUSY: StoreBusy,
            sqlite3.SQLITE_LOCKED: StoreBusy,
            sqlite3.SQLITE_FULL: StoreFull,
            sqlite3.SQLITE_CORRUPT: StoreDamaged,
            sqlite3.SQLITE_NOTADB: StoreDamaged,
        }
        raise kinds.get(code & 0xFF, StoreError)(f"{path}: {error} ({name})") from error


def create(path: Path, known: Known) -> None:
    """A file that knows all this, complete and durable at the instant when it has its name.

    Raises StoreError or OSError, and leaves nothing half-done under that name.
    """
    new = path.with_name(path.name + ".new")
    # A log that an earlier file left would be replayed into this one.
    leftovers = [new, *(base.with_name(base.name + end) for base in (path, new) for end in _COMPANIONS)]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    with translated(new), contextlib.closing(connect(new, "rwc", 0)) as connection:
        connection.executescript(f"BEGIN; {SCHEMA}")
        write(connection, known.all())
        connection.execute("COMMIT")
    new.replace(path)
    sync_directory(path.parent)


_COMPANIONS = ("-wal", "-shm", "-journal")


def sync_directory(directory: Path) -> None:
    """Names are in the directory, which has its own place on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Database:
    """An existing file, for one thread at a time.  Every method may raise StoreError."""

    def __init__(self, path: Path, busy_s: float, *, alone: bool = False) -> None:
        """``alone`` works where the shared-memory file cannot be made, and locks everyone else out."""
        if not path.is_file():
            raise StoreDamaged(f"{path} is not a regular file")
        status = path.stat()
        if status.st_size == 0:
            raise StoreDamaged(f"{path} is empty")
        self.path = path
        self._names = ContainerNames()
        self._inode = status.st_ino
        with translated(path):
            self._connection = connect(path, "rw", busy_s)
            try:
                if alone:
                    self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
            except sqlite3.Error:
                self._connection.close()
                raise

    def load(self) -> Known:
        """What it knows, after a look for damage in the tables that control depends on."""
        with translated(self.path):
            if self._number("PRAGMA application_id") != APPLICATION_ID:
                raise StoreDamaged(f"{self.path} is no store of Escra's")
            version = self._number("PRAGMA user_version")
            if version != SCHEMA_VERSION and version not in UPGRADES:
                raise StoreDamaged(
                    f"{self.path} has schema version {version}, and this program knows {SCHEMA_VERSION}"
                )
            for table in ("meta", "bounds", "sizes"):
                found = [row[0] for row in self._connection.execute(f"PRAGMA quick_check({table})")]
                if found != ["ok"]:
                    raise StoreDamaged(f"{self.path} is damaged: {found[0].splitlines()[-1]}")
            metas = self._connection.execute(
                "SELECT generation, starts, promoted, clean, lost FROM meta"
            ).fetchall()
            if len(metas) != 1:
                raise StoreDamaged(f"{self.path} is damaged: its table meta has {len(metas)} rows")
            generation, starts, promoted, clean, lost = metas[0]
            return Known(
                Meta(generation, starts, bool(promoted), bool(clean), lost),
                {(h, a): Bound(c, m) for h, a, c, m in self._connection.execute("SELECT * FROM bounds")},
                {a: Size(c, m) for a, c, m in self._connection.execute("SELECT * FROM sizes")},
            )

    def upgrade(self) -> None:
        """Take over the file of an earlier version: all of it, or nothing is changed.

        ``load`` reads those, too: who cannot write this one starts a new one with all that is known.
        """
        with translated(self.path):
            version = self._number("PRAGMA user_version")
            if version == SCHEMA_VERSION:
                return
        with self._transaction():
            while version < SCHEMA_VERSION:
                for statement in UPGRADES[version].split(";"):
                    self._connection.execute(statement)
                version = self._number("PRAGMA user_version")

    def other_damage(self) -> str:
        """What is wrong elsewhere, as in the audit; "" when nothing is, or when it is too much to read.

        A damaged list of free pages would let the audit overwrite the bounds.
        """
        if self.path.stat().st_size > _QUICK_BYTES:
            return ""
        with translated(self.path):
            found = str(self._connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        return "" if found == "ok" else f"{self.path} is damaged: {found.splitlines()[-1]}"

    def save(self, changes: Changes) -> None:
        """On disk when this returns, all or nothing."""
        with self._transaction():
            write(self._connection, changes)

    def record(
        self,
        decisions: Iterable[Decision],
        history: Iterable[HistoryRow],
        audit_rows: int,
        history_since: float,
        containers: Sequence[ContainerRow] = (),
    ) -> None:
        """Append, and remove what is beyond ``audit_rows`` or from before ``history_since``, oldest first.

        The containers' history gets coarser, and ends, by itself: see ``containerhistory``.
        """
        try:
            self._record(decisions, history, audit_rows, history_since, containers)
        except StoreError:
            self._names.forget()
            raise

    def _record(
        self,
        decisions: Iterable[Decision],
        history: Iterable[HistoryRow],
        audit_rows: int,
        history_since: float,
        containers: Sequence[ContainerRow],
    ) -> None:
        with self._transaction():
            run = self._connection.executemany
            run(
                "INSERT INTO decisions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (audit_row(decision) for decision in decisions),
            )
            run(f"INSERT INTO history VALUES ({', '.join('?' * 11)})", (history_row(row) for row in history))
            # Both tables grow at one end and shrink at the other, so their numbers have no gaps.
            self._connection.execute(
                "DELETE FROM decisions WHERE seq <= (SELECT max(seq) FROM decisions) - ?"
                " AND seq < (SELECT min(seq) FROM decisions) + ?",
                (audit_rows, PRUNE_BATCH),
            )
            self._connection.execute(
                "DELETE FROM history WHERE at < ? AND rowid < (SELECT min(rowid) FROM history) + ?",
                (history_since, PRUNE_BATCH),
            )
            if containers:
                add(self._connection, self._names, containers)
                age(self._connection, containers[-1].at)

    def make_room(self) -> None:
        """Let the log begin anew in the space that it has."""
        with translated(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)")

    def close(self) -> None:
        """Also moves the log into the file, when no other connection is open and the disk allows it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
                self._check_name()
            finally:
                # After some errors sqlite has rolled back by itself.
                if self._connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")

    def _check_name(self) -> None:
        """What was written to a file that somebody removed is lost with it."""
        try:
            found = self.path.stat().st_ino
        except OSError as error:
            raise StoreDamaged(f"{self.path} was taken away: {error.strerror}") from error
        if found != self._inode:
            raise StoreDamaged(f"{self.path} was replaced by another file")

    def _number(self, pragma: str) -> int:
        (value,) = self._connection.execute(pragma).fetchone()
        return int(value)
