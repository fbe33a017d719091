"""The demo's own cgroups, on v1 and v2: made below a parent of its own, read, filled, removed."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from escra_common.errors import EscraError
from escra_common.units import MAX_MILLICORES, quota_millicores
from escra_controller.demo.scene import Reading

PERIOD_USEC = 100_000
# v1: the agent reads use and memory from hierarchies of their own.
_V1_CONTROLLERS = ("cpu", "cpuacct", "memory")


class NoCgroups(EscraError):
    """This machine's cgroups cannot be written; the text says what to do about it."""


class Group:
    """One cgroup; ``path`` is relative to the root of every hierarchy, as in the agent's configuration."""

    def __init__(self, path: str, roots: Sequence[Path], v2: bool) -> None:
        self.path = path
        self._folders = [root / path for root in roots]
        self._cpu = self._folders[0]
        self._v2 = v2

    def limit(self, milli: int) -> None:
        quota = milli * PERIOD_USEC // 1000
        if self._v2:
            (self._cpu / "cpu.max").write_text(f"{quota} {PERIOD_USEC}")
        else:
            (self._cpu / "cpu.cfs_quota_us").write_text(str(quota))

    def add(self, pid: int) -> None:
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def limit_milli(self) -> int:
        """Quota and burst together (K8), as the kernel holds them now; the period is read back (K7)."""
        if self._v2:
            quota, period = (self._cpu / "cpu.max").read_text().split()
            burst = self._optional("cpu.max.burst")
        else:
            quota = (self._cpu / "cpu.cfs_quota_us").read_text()
            period = (self._cpu / "cpu.cfs_period_us").read_text()
            burst = self._optional("cpu.cfs_burst_us")
        if quota.strip() in ("max", "-1"):
            return MAX_MILLICORES  # more than every limit there can be: the sum is not kept
        return quota_millicores(int(quota) + burst, int(period))

    def read(self, limit_milli: int) -> Reading:
        """Its counters, beside a limit read before."""
        counters = dict(line.split() for line in (self._cpu / "cpu.stat").read_text().splitlines())
        if self._v2:
            usage_usec, throttled_usec = int(counters["usage_usec"]), int(counters["throttled_usec"])
        else:
            accounting = self._folders[1] if len(self._folders) > 1 else self._cpu
            usage_usec = int((accounting / "cpuacct.usage").read_text()) // 1000
            throttled_usec = int(counters["throttled_time"]) // 1000
        return Reading(
            limit_milli=limit_milli,
            usage_usec=usage_usec,
            nr_periods=int(counters["nr_periods"]),
            nr_throttled=int(counters["nr_throttled"]),
            throttled_usec=throttled_usec,
        )

    def _optional(self, name: str) -> int:
        try:
            return int((self._cpu / name).read_text())
        except FileNotFoundError:  # burst came with Linux 5.14
            return 0


def limits_at_one_moment(groups: Sequence[Group]) -> list[int]:
    """All limits as they were together at some instant.

    Files are read one after the other: a shrink and a growth between two reads would look like
    limits that were never in force together.  Two equal rounds in a row show that nothing moved.
    """
    before = [group.limit_milli() for group in groups]
    while (now := [group.limit_milli() for group in groups]) != before:
        before = now
    return now


@contextlib.contextmanager
def demo_groups(names: Sequence[str]) -> Iterator[list[Group]]:
    """Empty cgroups ``escra-demo-PID/NAME``; raises NoCgroups where that is not allowed.

    Whoever puts processes in must have ended them before the end of the block.
    """
    roots, v2 = _roots()
    parent = f"escra-demo-{os.getpid()}"
    with ExitStack() as made:
        try:
            for root in roots:
                if v2:
                    _delegate(root)
                _make(root / parent, made)
                if v2:
                    _delegate(root / parent)
                for name in names:
                    _make(root / parent / name, made)
            groups = [Group(f"{parent}/{name}", roots, v2) for name in names]
            for group in groups:
                group.limit(1000)  # what can be made might still not be written
        except OSError as error:
            raise _explained(roots[0], error) from error
        yield groups


def _roots() -> tuple[list[Path], bool]:
    """Where the hierarchies are mounted, the one with the cpu controller first."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup":
            v1 |= {name: Path(where) for name in options.split(",") if name in _V1_CONTROLLERS}
        elif kind == "cgroup2" and "cpu" in (Path(where) / "cgroup.controllers").read_text().split():
            v2 = Path(where)
    if v2 is not None:
        return [v2], True
    if "cpu" not in v1 or "cpuacct" not in v1:
        raise NoCgroups(
            "no cgroup hierarchy with the cpu controller is mounted; on a host that systemd "
            "started there is one, in a container it takes --privileged --cgroupns=host"
        )
    # Controllers mounted together are one directory.
    return list(dict.fromkeys(v1[name] for name in _V1_CONTROLLERS if name in v1)), False


def _make(folder: Path, made: ExitStack) -> None:
    folder.mkdir()
    made.callback(_remove, folder)


def _delegate(parent: Path) -> None:
    """Let the children of ``parent`` have limits (v2); what is delegated already stays so."""
    available = (parent / "cgroup.controllers").read_text().split()
    delegated = (parent / "cgroup.subtree_control").read_text().split()
    for controller in ("cpu", "memory"):
        if controller in available and controller not in delegated:
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _remove(folder: Path) -> None:
    """A cgroup is busy for a moment after its last process has been waited for."""
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def _explained(root: Path, error: OSError) -> NoCgroups:
    match error:
        case PermissionError():
            return NoCgroups(f"no right to make cgroups below {root}; run it as root: sudo make demo")
        case OSError() if error.errno == errno.EROFS:
            return NoCgroups(
                f"{root} is mounted read-only; remount it (mount -o remount,rw {root}), "
                "or give the container --privileged"
            )
    return NoCgroups(f"cannot use cgroups below {root}: {error}")
