"""Looks at the machine: /proc and /sys below ``root``, which tests give a tree of their own."""

import ctypes
import os
import platform
import re
from pathlib import Path
from typing import Literal

from escra_common.mounts import cgroup_mounts
from escra_controller.doctor.facts import Host

# adjtimex(2): struct timex has `status` after five longs; the kernel knows whether anybody sets the clock.
_STA_UNSYNC = 0x0040
_STATUS_AT, _TIMEX_BYTES = 5 * 8, 208
_WANTED = frozenset({"cpu", "memory"})


def read_host(root: Path = Path("/")) -> Host:
    """Never fails: what cannot be read is None, empty or its harmless default."""
    release = _text(root / "proc/sys/kernel/osrelease") or platform.release()
    mounts, unified = cgroup_mounts(_text(root / "proc/self/mountinfo"), _WANTED)
    v1, tree = "cpu" in mounts, _below(root, unified)
    cgroup: Literal["v1", "v2", "hybrid", ""] = ""
    if v1:
        cgroup = "hybrid" if unified else "v1"
    elif unified:
        cgroup = "v2"
    controllers = frozenset(mounts)
    handed_down: frozenset[str] | None = None
    if not v1 and tree is not None:
        controllers = _words(tree / "cgroup.controllers") & _WANTED
        handed_down = _handed_down(tree)
    cpu = _below(root, mounts.get("cpu")) or tree
    memory = _below(root, mounts.get("memory")) or tree
    return Host(
        release=release,
        version=_version(release),
        cgroup=cgroup,
        controllers=controllers,
        handed_down=handed_down,
        read_only=cpu is not None and _read_only(cpu),
        quota=_in_a_child(cpu, "cpu.cfs_quota_us" if v1 else "cpu.max"),
        burst=_in_a_child(cpu, "cpu.cfs_burst_us" if v1 else "cpu.max.burst"),
        pressure=(root / "proc/pressure/cpu").exists(),
        swap_total_bytes=_swap_total(root),
        swap_limits=_in_a_child(
            memory, "memory.memsw.limit_in_bytes" if "memory" in mounts else "memory.swap.max"
        ),
        clock_source=_text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        clock_synchronised=_synchronised(root),
        cpus=os.cpu_count() or 1,
        open_files=_open_files(root),
        systemd=(root / "run/systemd/system").is_dir(),
        superuser=os.geteuid() == 0,
        processes=processes(root),
    )


def processes(root: Path = Path("/")) -> frozenset[str]:
    return frozenset(name for path in (root / "proc").glob("[0-9]*/comm") if (name := _text(path)))


def followed(root: Path = Path("/")) -> dict[str, bool]:
    """Units with a file of the agent beside them, and whether there is a cgroup of that name."""
    files = (root / "run/systemd/system").glob("*.d/90-escra.conf")
    units = {path.parent.name.removesuffix(".d") for path in files}
    if not units:
        return {}
    there = {name for _, names, _ in os.walk(root / "sys/fs/cgroup") for name in units.intersection(names)}
    return {unit: unit in there for unit in units}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _words(path: Path) -> frozenset[str]:
    return frozenset(_text(path).split())


def _below(root: Path, point: str | None) -> Path | None:
    return None if point is None else root / point.lstrip("/")


def _version(release: str) -> tuple[int, int]:
    """
    >>> _version("6.1.0-28-amd64"), _version("strange")
    ((6, 1), (0, 0))
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _handed_down(tree: Path) -> frozenset[str]:
    """To the children of system.slice, where Docker's scopes and most services are; else of the root."""
    down = _words(tree / "cgroup.subtree_control")
    system = tree / "system.slice"
    if system.is_dir():
        down &= _words(system / "cgroup.subtree_control")
    return down & _WANTED


def _in_a_child(tree: Path | None, name: str) -> bool | None:
    """The root of a tree has no such files; None without any child that could."""
    if tree is None or not tree.is_dir():
        return None
    children = [path for path in sorted(tree.iterdir()) if path.is_dir()]
    if not children:
        return True if (tree / name).exists() else None
    return any((child / name).exists() for child in children)


def _read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _swap_total(root: Path) -> int:
    match = re.search(r"(?m)^SwapTotal:\s+(\d+) kB", _text(root / "proc/meminfo"))
    return int(match[1]) << 10 if match else 0


def _open_files(root: Path) -> tuple[int, int] | None:
    numbers = _text(root / "proc/sys/fs/file-nr").split()
    return (int(numbers[0]), int(numbers[2])) if len(numbers) == 3 else None


def _synchronised(root: Path) -> bool | None:
    """The kernel's own word; of another tree than this machine's nothing can be told."""
    if root != Path("/") or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return None
    status = int.from_bytes(timex.raw[_STATUS_AT : _STATUS_AT + 4], "little")
    return not status & _STA_UNSYNC
