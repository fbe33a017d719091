"""What a start finds in the state directory, and what it makes of it."""

import os
import time
from pathlib import Path

from escra_controller.storage.database import Database, StoreBusy, StoreDamaged, StoreError
from escra_controller.storage.setaside import asides, set_aside
from escra_controller.storage.values import Changes, Known, Recovered
from escra_controller.storage.writer import Limits, News, Writer, explain

NAME = "controller.db"

# How long a start waits for whoever holds a lock.
_PATIENCE_S = 2.0


class StoreLocked(StoreError):
    """Another program uses the store; two controllers must not share one."""


def recover(directory: Path, tell: News, limits: Limits) -> tuple[Writer, Recovered]:
    """Read what is there, and have this start counted on disk.  See ``Store.open``."""
    path = directory / NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        known, database, lost, failure = _find(path, limits)
    except StoreBusy as error:
        raise _locked(error) from error
    except OSError as error:
        raise StoreError(
            f"the state directory {directory} cannot be used: {explain(error)}; free it, or give another one"
        ) from error
    if lost:
        tell("error", f"{lost}; what hosts hold that do not come back is not known")
    clean = known.meta.clean
    known.started(lost)
    writer = Writer(path, known, database, tell, limits)
    if failure is not None:
        writer.give_up(failure)
    deadline = time.monotonic() + _PATIENCE_S
    while not writer.save(Changes(known.meta)):
        if writer.in_the_way:
            raise StoreError(writer.trouble)
        if time.monotonic() > deadline:
            writer.close()
            raise _locked(path)
    meta = known.meta
    recovered = Recovered(
        meta.generation, meta.starts, meta.promoted, clean, dict(known.bounds), dict(known.sizes), meta.lost
    )
    return writer, recovered


def _find(path: Path, limits: Limits) -> tuple[Known, Database | None, str, StoreError | None]:
    """What is known, the file that knows it, why others are lost, and why to give that file up."""
    if not os.path.lexists(path):
        return Known(), None, _gone(path), None
    try:
        database, known, failure = _read(path, limits)
    except StoreBusy:
        raise
    except (StoreError, OSError) as error:
        aside = set_aside(path)
        kept = "had to be emptied" if aside == path else f"is kept as {aside.name}"
        return Known(), None, f"{explain(error)}; it {kept}", None
    return known, database, "", failure


def _read(path: Path, limits: Limits) -> tuple[Database, Known, StoreError | None]:
    failure: StoreError | None = None
    try:
        database = Database(path, limits.busy_s)
    except (StoreBusy, StoreDamaged):
        raise
    except StoreError as error:
        # On a full disk the shared-memory file cannot be made, but the store can still be read.
        failure = error
        database = Database(path, limits.busy_s, alone=True)
    try:
        known = database.load()
        damage = database.other_damage()
        if not damage and failure is None:
            try:
                database.upgrade()
            except StoreBusy:
                raise
            except StoreError as error:
                failure = error  # what it knows goes into a new one
    except StoreError:
        database.close()
        raise
    return database, known, StoreDamaged(damage) if damage else failure


def _gone(path: Path) -> str:
    """Why a store that has no file is not simply new; "" when it is."""
    log = path.with_name(path.name + "-wal")
    if log.exists():
        return f"{path} is gone, and only its log was left; it is kept as {set_aside(path).name}-wal"
    if left := asides(path):
        return f"{path} was given up as {left[-1].name}, and no new one was completed"
    return ""


def _locked(what: object) -> StoreLocked:
    who = "a second controller, or a sqlite3 shell"
    return StoreLocked(f"{what}: another program holds a lock on the store; stop it ({who}) and start again")
