"""The drop-in files beside systemd's units.

Measured with systemd 252: a file in /run/systemd/system/UNIT.d is read at the next daemon-reload for
services and for Docker's transient scopes alike, and its values come after those of ``docker update``
(50-CPUQuota.conf and so on beside the transient unit) and ``systemctl set-property`` by its name.
``SetUnitProperties`` over D-Bus would need privileges, round to whole percents, and write cpu.max (K3).
"""

import os
from pathlib import Path

# Exists where, and only where, systemd is PID 1 (sd_booted(3)).
UNITS = Path("/run/systemd/system")
NAME = "90-escra.conf"


class UnitFiles:
    """Raises OSError as the system gives it; ``directory`` must exist."""

    def __init__(self, directory: Path = UNITS) -> None:
        self._directory = directory

    def available(self) -> bool:
        return self._directory.is_dir()

    def read_all(self) -> dict[str, str]:
        """Unit -> text, of all files that an agent wrote."""
        found = {}
        for path in sorted(self._directory.glob(f"*.d/{NAME}")):
            found[path.parent.name.removesuffix(".d")] = path.read_text(errors="replace")
        return found

    def write(self, unit: str, text: str) -> None:
        """Whole or not at all, readable by everybody as unit files are."""
        folder = self._directory / f"{unit}.d"
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)
        # systemd reads files that end in .conf.
        new = folder / f"{NAME}.new"
        new.write_text(text)
        new.chmod(0o644)
        new.replace(folder / NAME)

    def remove(self, unit: str) -> None:
        """With its folder, unless somebody else has a file there; gone already is well, too."""
        folder = self._directory / f"{unit}.d"
        for name in (NAME, f"{NAME}.new"):
            (folder / name).unlink(missing_ok=True)
        try:
            os.rmdir(folder)
        except OSError:
            return
