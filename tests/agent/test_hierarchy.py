"""Which cgroup version a host has, from the mount tables of real hosts."""

import os
from pathlib import Path

import pytest

from escra_agent.errors import CgroupGone, CgroupUnusable
from escra_agent.hierarchy import Hierarchy, NoCgroups, parse_proc_cgroup
from escra_common.messages import CpuLimit

DEBIAN_12 = """\
24 30 0:22 / /sys rw,nosuid,nodev shared:7 - sysfs sysfs rw
28 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate
30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
"""

UBUNTU_18_V1 = """\
31 24 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev shared:11 - cgroup cgroup rw,xattr,name=systemd
36 31 0:31 / /sys/fs/cgroup/memory rw,nosuid,nodev shared:15 - cgroup cgroup rw,memory
37 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev shared:16 - cgroup cgroup rw,cpu,cpuacct
39 31 0:34 / /sys/fs/cgroup/cpuset rw,nosuid,nodev shared:18 - cgroup cgroup rw,cpuset
"""

SYSTEMD_HYBRID = UBUNTU_18_V1 + (
    "33 31 0:29 / /sys/fs/cgroup/unified rw,nosuid,nodev shared:12 - cgroup2 cgroup2 rw,nsdelegate\n"
)

EVERY_CONTROLLER_APART = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_debian_12_is_v2() -> None:
    found = Hierarchy.detect(DEBIAN_12)
    assert (found.version, found.unified) == ("v2", "/sys/fs/cgroup")
    assert found.mounts == {}


def test_v1_with_cpu_and_cpuacct_together() -> None:
    found = Hierarchy.detect(UBUNTU_18_V1)
    assert (found.version, found.unified) == ("v1", None)
    assert found.mounts == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuset": "/sys/fs/cgroup/cpuset",
        "memory": "/sys/fs/cgroup/memory",
    }


def test_hybrid_is_v1_with_a_v2_tree_beside_it() -> None:
    found = Hierarchy.detect(SYSTEMD_HYBRID)
    assert (found.version, found.unified) == ("hybrid", "/sys/fs/cgroup/unified")
    assert found.mounts["cpu"] == "/sys/fs/cgroup/cpu,cpuacct"


def test_every_controller_mounted_by_itself() -> None:
    found = Hierarchy.detect(EVERY_CONTROLLER_APART)
    assert (found.version, found.unified) == ("hybrid", "/sys/fs/cgroup/unified")
    assert found.mounts["cpu"] == "/sys/fs/cgroup/cpu"
    assert found.mounts["cpuacct"] == "/sys/fs/cgroup/cpuacct"


def test_a_view_of_a_part_of_the_tree_is_not_taken_for_the_tree() -> None:
    part = "50 49 0:26 /docker/0123 /var/lib/c/cgroup ro - cgroup2 cgroup2 rw\n"
    assert Hierarchy.detect(part + DEBIAN_12).unified == "/sys/fs/cgroup"
    with pytest.raises(NoCgroups, match="mount cgroup2"):
        Hierarchy.detect(part)


def test_the_first_of_several_mounts_counts_and_spaces_are_decoded() -> None:
    first = "20 1 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n"
    assert Hierarchy.detect(first + DEBIAN_12).unified == "/mnt/my groups"


def test_a_host_without_cgroups_is_told_what_to_do() -> None:
    with pytest.raises(NoCgroups, match="run on the host"):
        Hierarchy.detect("30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n")


def test_a_cgroup_may_have_any_character_in_its_name_but_newline() -> None:
    assert parse_proc_cgroup("0::/a\x0cb\u2028c\x85:d\n") == {"": "/a\x0cb\u2028c\x85:d"}
    with pytest.raises(CgroupUnusable, match="not a plain path"):
        Hierarchy("v2", {}, "/sys/fs/cgroup").open_paths({"": "/a\x0cb"})
    with pytest.raises(CgroupUnusable, match="cannot find the cgroup"):
        parse_proc_cgroup("nonsense\n")


@pytest.mark.parametrize("path", ["file", "file/x", "x" * 300])
def test_a_path_that_no_cgroup_can_have_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CgroupUnusable, match="cannot open cgroup"):
        Hierarchy("v2", {}, str(tmp_path)).open(path)


def test_files_that_say_strange_things_make_their_own_cgroup_unusable(tmp_path: Path) -> None:
    cgroup = tmp_path / "web"
    cgroup.mkdir()
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "cpu.stat").write_text("usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
    opened = Hierarchy("v2", {}, str(tmp_path)).open("web")
    assert opened.read().limit == CpuLimit(None, 100_000)
    (cgroup / "cpu.max").write_text("17592186044415 100000\n")  # the kernel's greatest: nobody has so much
    assert opened.read_limit() == CpuLimit(None, 100_000)
    for text in ("", "max", "max 0\n", "-5 100000\n", "9" * 4000 + " 100000\n"):
        (cgroup / "cpu.max").write_text(text)
        with pytest.raises(CgroupUnusable, match="no kernel is known to say"):
            opened.read()
    opened.close()


def test_paths_of_a_process() -> None:
    found = Hierarchy.detect(EVERY_CONTROLLER_APART)
    paths = found.paths_of_pid(os.getpid())
    assert paths
    assert all(path.startswith("/") for path in paths.values())


def test_a_process_that_is_not_there_is_gone() -> None:
    found = Hierarchy.detect(DEBIAN_12)
    with pytest.raises(CgroupGone, match="process 4194305"):
        found.paths_of_pid(4_194_305)  # one more than the kernel's largest


@pytest.mark.parametrize("mountinfo", [DEBIAN_12, UBUNTU_18_V1, SYSTEMD_HYBRID, EVERY_CONTROLLER_APART])
def test_a_cgroup_that_is_not_there_is_gone(mountinfo: str) -> None:
    with pytest.raises(CgroupGone, match="no-such-cgroup"):
        Hierarchy.detect(mountinfo).open("no-such-cgroup/at-all")
