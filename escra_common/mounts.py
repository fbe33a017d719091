"""Where cgroup file systems are mounted, from /proc/self/mountinfo.  Pure."""

import re
from collections.abc import Collection

# 32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
#       (root) (mount point)              (optional fields)   - (type) (source) (controllers)
_MOUNT = re.compile(r"\d+ \d+ \S+ (?P<root>\S+) (?P<point>\S+) .*- cgroup(?P<v2>2?) \S+ (?P<options>\S+)")


def cgroup_mounts(text: str, controllers: Collection[str]) -> tuple[dict[str, str], str | None]:
    """The mount point of each of these v1 controllers that has one, and that of the v2 tree."""
    mounts: dict[str, str] = {}
    unified: str | None = None
    for line in text.split("\n"):
        match = _MOUNT.fullmatch(line)
        # A mount of a part of the tree (another container's view) has paths that mean
        # something else than those in /proc/PID/cgroup.
        if match is None or match["root"] != "/":
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), match["point"])
        if match["v2"]:
            unified = unified or point
        else:
            for controller in set(match["options"].split(",")) & set(controllers):
                mounts.setdefault(controller, point)
    return mounts, unified
