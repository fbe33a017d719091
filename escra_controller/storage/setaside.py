"""Files that cannot be used any more, kept under another name for whoever wants to look.

When the store's own name is free and there is such a file, then what it knew is lost: a new
store gets that name only when it knows everything (see ``database.create``), or itself says
what is lost.
"""

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from escra_controller.storage.database import sync_directory

KEPT = 3
_MARK = ".unusable-"
_LOGS = ("-wal", "-shm")


def set_aside(path: Path) -> Path:
    """Rename the file and its log; returns the new name.  Nobody may have the file open.

    A rename works on a full disk.  Where it is refused the file is emptied, which says the same to
    the next start.  Raises OSError when not even that works: then the file still says what it said.
    """
    logs = [path.with_name(path.name + end) for end in _LOGS]
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}{_MARK}{time}")
    if not any(os.path.lexists(file) for file in (path, *logs)):
        return aside
    try:
        _move(path, aside)
    except OSError:
        with path.open("r+b") as file:
            file.truncate()
        aside = path
    else:
        for log, end in zip(logs, _LOGS, strict=True):
            _move(log, aside.with_name(aside.name + end))
    sync_directory(path.parent)
    _prune(path)
    return aside


def asides(path: Path) -> list[Path]:
    """Oldest first, without their logs."""
    found = path.parent.glob(f"{path.name}{_MARK}*")
    return sorted(file for file in found if not file.name.endswith(_LOGS))


def _move(old: Path, new: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        old.rename(new)


def _prune(path: Path) -> None:
    for file in asides(path)[:-KEPT]:
        # Nothing depends on this; a directory that someone put there is not ours to empty.
        with contextlib.suppress(OSError):
            file.unlink()
        for log in _LOGS:
            with contextlib.suppress(OSError):
                file.with_name(file.name + log).unlink()
