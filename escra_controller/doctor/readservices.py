"""Looks at the daemons of this host: their configuration, units, locks, state directories and certificates.

The configuration is judged by the daemons' own `check-config`, as a person would do it.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from escra_common.errors import ConfigError
from escra_common.lock import Lock
from escra_common.tls import TlsConfig, expiries
from escra_controller.doctor.facts import Daemon, Folder, Tls

COMMAND_S = 10.0
_PROPERTIES = "LoadState,ActiveState,UnitFileState,MainPID,NRestarts,WatchdogUSec,ExecMainStatus,StatusText"


def read_daemon(name: Literal["agent", "controller"], path: Path, *, systemd: bool) -> Daemon | None:
    """None when nothing says that it belongs on this host."""
    unit = _unit(f"escra-{name}") if systemd else None
    exists = os.path.lexists(path)
    if unit is None and not exists:
        return None
    config, error = check_config(name, path)
    state = Path((config or {}).get("state_dir") or f"/var/lib/escra-{name}")
    tls = (config or {}).get("tls")
    return Daemon(
        name,
        str(path),
        config,
        error,
        unit,
        Lock(state / "lock").holder(),
        read_folder(state),
        read_tls(TlsConfig(**tls), unit, server=name == "controller") if tls else None,
    )


def check_config(name: str, path: Path) -> tuple[dict[str, Any] | None, str]:
    """What the daemon understands, or why it does not."""
    command = [sys.executable, "-m", f"escra_{name}.daemon", "check-config", "--config", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
        if done.returncode == 0:
            return json.loads(done.stdout), ""
        return None, done.stderr.strip().removeprefix(f"escra-{name}: ")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return None, f"escra-{name} check-config does not work: {error}"


def _unit(unit: str) -> dict[str, str] | None:
    """None where systemd knows no such unit."""
    command = ["systemctl", "show", f"--property={_PROPERTIES}", f"{unit}.service"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return None
    return found | {"LoadCredential": _credentials(unit)}


def _credentials(unit: str) -> str:
    """``NAME:PATH`` of each, from the unit's files: `systemctl show` calls them unprintable."""
    try:
        done = subprocess.run(
            ["systemctl", "cat", f"{unit}.service"], capture_output=True, text=True, timeout=COMMAND_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(re.findall(r"(?m)^LoadCredential=(\S+:\S+)$", done.stdout))


def read_folder(path: Path) -> Folder:
    try:
        mode = path.stat().st_mode & 0o7777
        room = os.statvfs(path)
        newest = max((entry.stat().st_mtime for entry in os.scandir(path)), default=0.0)
    except FileNotFoundError:
        return Folder(str(path), exists=False)
    except OSError:
        return Folder(str(path), unreadable=True)
    return Folder(
        str(path),
        mode=mode,
        free_bytes=room.f_bavail * room.f_frsize,
        read_only=bool(room.f_flag & os.ST_RDONLY),
        ahead_s=max(0.0, newest - time.time()),
    )


def read_tls(config: TlsConfig, unit: Mapping[str, str] | None, *, server: bool) -> Tls:
    """A credential that systemd hands out is looked for where the unit says it comes from."""
    try:
        here = resolve(config, unit)
    except KeyError as error:
        return Tls(
            unseen=f"[tls] names the credential {error.args[0]!r}, the unit has no such LoadCredential="
        )
    try:
        mode = Path(here.key).stat().st_mode & 0o7777
        return Tls(expiries(here, server=server), key=here.key, key_mode=mode)
    except PermissionError as error:
        return Tls(unseen=f"{error.filename}: permission denied")
    except OSError as error:
        return Tls(error=f"[tls] {error.filename}: {error.strerror}")
    except ConfigError as error:
        denied = "Permission denied" in str(error)
        return Tls(unseen=str(error)) if denied else Tls(error=str(error))


def resolve(config: TlsConfig, unit: Mapping[str, str] | None) -> TlsConfig:
    """With paths instead of names of credentials; raises KeyError."""
    loaded = [entry.partition(":") for entry in (unit or {}).get("LoadCredential", "").split()]
    paths = {name: path for name, _, path in loaded}
    return TlsConfig(*(n if "/" in n else paths[n] for n in (config.ca, config.cert, config.key)))
