"""A file that is there whole or not at all, whatever happens while it is written."""

import os
from pathlib import Path


def write_atomically(path: Path, body: bytes) -> None:
    """Replace ``path``, durably; its directory is made if need be.  Raises OSError; the old file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    # The rename itself is in the directory, which has its own place on the disk.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
