"""Where this host keeps its cgroups: version 1, version 2, or both at once.

A controller lives in exactly one hierarchy, so a mounted v1 cpu controller settles that CPU
limits are v1, whatever else is mounted.  On a hybrid host a v2 tree is there for systemd's
bookkeeping, and may carry the controllers that v1 does not.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from escra_agent.cgroupfs import Cgroup
from escra_agent.errors import CgroupUnusable, kernel_errors
from escra_common.errors import EscraError
from escra_common.mounts import cgroup_mounts

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory")
# How /proc/PID/cgroup names the v2 tree: an empty list of controllers.
UNIFIED = ""


class NoCgroups(EscraError):
    """Neither a v1 cpu controller nor a v2 tree is mounted."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """``mounts`` has the mount point of each v1 controller; ``unified`` that of the v2 tree."""

    version: Literal["v1", "v2", "hybrid"]
    mounts: Mapping[str, str]
    unified: str | None

    @classmethod
    def detect(cls, mountinfo: str | None = None) -> "Hierarchy":
        """Read from /proc/self/mountinfo; raises NoCgroups when there is nothing to manage."""
        text = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()) if mountinfo is None else mountinfo
        mounts, unified = cgroup_mounts(text, CONTROLLERS)
        if "cpu" in mounts:
            return cls("v1" if unified is None else "hybrid", mounts, unified)
        if unified is None:
            raise NoCgroups(
                "no cgroup file system with CPU limits is mounted here; "
                "mount cgroup2 on /sys/fs/cgroup, or run on the host rather than in a container"
            )
        return cls("v2", mounts, unified)

    def open(self, path: str) -> Cgroup:
        """A configured path such as ``system.slice/nginx.service``, the same in every hierarchy.

        Raises CgroupUnusable for the root and for ``..``, CgroupGone when there is no such cgroup.
        """
        return self.open_paths(dict.fromkeys((*CONTROLLERS, UNIFIED), path))

    def open_pid(self, pid: int) -> Cgroup:
        """The cgroup a process is in; raises as ``open``, CgroupGone also when the process has ended."""
        return self.open_paths(self.paths_of_pid(pid))

    def open_paths(self, paths: Mapping[str, str]) -> Cgroup:
        """A path for each controller, as ``paths_of_pid`` and ``Cgroup.paths`` give them."""
        checked = {controller: _checked(path) for controller, path in paths.items()}
        directories = {name: self._directory(name, checked) for name in CONTROLLERS}
        path = checked.get("cpu" if "cpu" in self.mounts else UNIFIED, "/")
        if directories["cpu"] is None or directories["cpuacct"] is None:
            raise CgroupUnusable(f"cannot manage cgroup {path}: it, or its CPU accounting, is the root's")
        return Cgroup(path, checked, directories)

    def paths_of_pid(self, pid: int) -> dict[str, str]:
        """Controller -> path below its mount point, ``""`` for the v2 tree."""
        with kernel_errors(f"find the cgroup of process {pid}"):
            text = os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes())
        return parse_proc_cgroup(text)

    def _directory(self, controller: str, paths: Mapping[str, str]) -> str | None:
        """None in the root: what is counted and limited there is not this cgroup's own."""
        on_v1 = controller in self.mounts
        mount = self.mounts[controller] if on_v1 else self.unified
        path = paths.get(controller if on_v1 else UNIFIED, "/")
        return None if mount is None or path == "/" else mount + path


# 3:cpu,cpuacct:/docker/0123           (v1; several controllers may share a hierarchy)
# 1:name=systemd:/docker/0123          (v1 without a controller)
# 0::/system.slice/docker-0123.scope   (v2)
def parse_proc_cgroup(text: str) -> dict[str, str]:
    """Raises CgroupUnusable.  A cgroup may have any character in its name but \\n, which ends a line here."""
    paths = {}
    for line in text.split("\n"):
        if not line:
            continue
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not number.isdecimal() or not path.startswith("/"):
            raise CgroupUnusable(f"cannot find the cgroup of a process in {line[:300]!r}")
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _checked(path: str) -> str:
    """``/a/b`` for any spelling of it; what could lead out of the tree is refused."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    # isprintable: a NUL ends the path for the kernel, and what is not UTF-8 cannot be sent.
    if ".." in parts or not path.isprintable():
        raise CgroupUnusable(f"cannot manage cgroup {path[:300]!r}: it is not a plain path below the root")
    return "/" + "/".join(parts)
