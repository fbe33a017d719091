"""Reading and limiting real cgroups, whatever version this machine has."""

import time
from pathlib import Path

import pytest

from escra_agent.cgroupfs import Cgroup
from escra_agent.errors import CgroupDenied, CgroupGone, CgroupUnusable, LimitRejected, kernel_errors
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from tests.kernel_cgroups import KernelCgroup, limit

pytestmark = pytest.mark.kernel


def settle(cgroup: Cgroup, periods: int = 5) -> None:
    """Wait until the load has been through some whole periods."""
    start, end = cgroup.read().nr_periods, time.monotonic() + 5
    while cgroup.read().nr_periods < start + periods:
        assert time.monotonic() < end, "no period passed"
        time.sleep(0.01)


def test_a_new_cgroup_has_no_limit_and_nothing_counted(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    counters = opened.read()
    assert counters.limit == CpuLimit(None, 100_000, 0)
    assert (counters.usage_usec, counters.nr_periods, counters.nr_throttled) == (0, 0, 0)
    assert opened.key == cgroup.cpu.stat().st_ino
    assert opened.path == f"/{cgroup.path}"
    assert opened.depth == 1
    opened.close()


def test_counters_of_a_throttled_cgroup(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(0.2))
    before = opened.read()
    cgroup.busy(2)
    settle(opened, 10)
    after = opened.read()
    elapsed = after.time_usec - before.time_usec
    assert after.nr_throttled - before.nr_throttled >= 8
    assert after.nr_throttled <= after.nr_periods
    # Two processes that are stopped for most of each period, and counted per CPU they wait on.
    assert after.throttled_usec > elapsed / 3
    assert 0.1 < (after.usage_usec - before.usage_usec) / elapsed < 0.3


def test_open_pid_finds_the_same_cgroup(cgroup: KernelCgroup) -> None:
    by_path = cgroup.open()
    process = cgroup.start("/bin/sleep", "1000")
    by_pid = cgroup.hierarchy.open_pid(process.pid)
    assert by_pid.key == by_path.key
    assert by_pid.path == by_path.path
    assert cgroup.hierarchy.open_paths(by_pid.paths).key == by_path.key
    cgroup.stop()
    with pytest.raises(CgroupGone, match=str(process.pid)):
        cgroup.hierarchy.open_pid(process.pid)


def test_limits_are_read_back_as_written(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    steps = [
        limit(0.5),
        limit(0.5, burst_usec=50_000),
        limit(0.1, burst_usec=5_000),
        limit(2.0, burst_usec=200_000),
        limit(0.3, period_usec=20_000),
        limit(0.2, period_usec=1_000_000, burst_usec=1),
        CpuLimit(None, 100_000),
        limit(0.01),
        CpuLimit(None, 50_000),
    ]
    for step in steps:
        assert opened.write_limit(step) == step
        assert opened.read_limit() == step
        assert opened.read(fresh=True).limit == step


def test_only_what_differs_is_written(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(0.5))
    assert opened.writes == 1
    opened.write_limit(limit(0.5))
    assert opened.writes == 1
    opened.write_limit(limit(0.4))
    assert opened.writes == 2
    opened.write_limit(limit(0.4, burst_usec=1_000))
    assert opened.writes == 3


def test_a_foreign_write_is_seen_by_the_next_read(cgroup: KernelCgroup) -> None:
    opened, other = cgroup.open(), cgroup.open()
    opened.write_limit(limit(0.5))
    for cores in (0.3, 0.7, None):
        foreign = CpuLimit(None, 100_000) if cores is None else limit(cores)
        other.write_limit(foreign)
        assert opened.read().limit == foreign


def test_a_foreign_period_is_seen_within_ten_reads(cgroup: KernelCgroup) -> None:
    opened, other = cgroup.open(), cgroup.open()
    opened.write_limit(limit(0.5))
    opened.read()
    other.write_limit(limit(0.5, period_usec=50_000, burst_usec=2_000))
    assert opened.read(fresh=True).limit == limit(0.5, period_usec=50_000, burst_usec=2_000)
    other.write_limit(limit(0.5))
    seen = [opened.read().limit for _ in range(10)]
    assert seen[-1] == limit(0.5)


def test_a_rejected_limit_leaves_the_old_one(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(0.5))
    for bad in (CpuLimit(999, 100_000), CpuLimit(50_000, 1_000_001), CpuLimit(50_000, 100_000, 50_001)):
        with pytest.raises(LimitRejected, match=f"{cgroup.path}.*Invalid argument"):
            opened.write_limit(bad)
        assert opened.read_limit() == limit(0.5)


def test_a_removed_cgroup_is_gone_for_every_operation(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    assert opened.still_there()
    cgroup.remove()
    for operation in (
        opened.read,
        opened.read_limit,
        lambda: opened.write_limit(limit(1)),
    ):
        with pytest.raises(CgroupGone, match=cgroup.path):
            operation()
    assert not opened.still_there()
    with pytest.raises(CgroupGone, match=cgroup.path):
        cgroup.open()


def test_a_cgroup_made_anew_under_the_same_name_is_another(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    cgroup.remove()
    again = KernelCgroup(cgroup.hierarchy, cgroup.path)
    try:
        assert again.open().key != opened.key
        assert not opened.still_there()
        with pytest.raises(CgroupGone):
            opened.read()
        with pytest.raises(CgroupGone):
            opened.write_limit(limit(0.5))
        assert again.open().read_limit().quota_usec is None
    finally:
        again.remove()


def test_the_tightest_limit_above_is_the_cap(cgroup: KernelCgroup) -> None:
    middle = cgroup.child("middle")
    leaf = middle.child("leaf").open()
    assert leaf.depth == 3
    assert leaf.cap_milli() is None
    cgroup.open().write_limit(CpuLimit(33_333, 100_000))
    assert leaf.cap_milli() == 333
    middle.open().write_limit(CpuLimit(10_000, 50_000))
    assert leaf.cap_milli() == 200
    assert middle.open().cap_milli() == 333
    assert cgroup.open().cap_milli() is None


def test_pinned_is_a_cpuset_narrower_than_the_one_above(cgroup: KernelCgroup) -> None:
    cpuset = Path(cgroup.hierarchy.mounts.get("cpuset", str(cgroup.hierarchy.unified)), cgroup.path)
    opened = cgroup.open()
    assert not opened.pinned()
    effective = cpuset.parent / "cpuset.cpus.effective"
    if not effective.exists():
        effective = cpuset.parent / "cpuset.effective_cpus"
    if not effective.exists() or effective.read_text().strip() == "0":
        pytest.skip("there is one CPU, or no cpuset controller: nothing can be pinned")
    (cpuset / "cpuset.cpus").write_text("0")
    assert opened.pinned()


def test_memory_in_use_and_its_limit(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    reading = opened.memory()
    assert reading is not None
    assert reading.limit_bytes is None
    assert (reading.oom_events, reading.oom_kills) == (0, 0)
    before = reading.used_bytes
    cgroup.start("/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=8M")
    end = time.monotonic() + 5
    while (reading := opened.memory()) is None or reading.used_bytes < before + (8 << 20):
        assert time.monotonic() < end, reading
        time.sleep(0.02)


def test_an_oom_kill_is_counted(cgroup: KernelCgroup) -> None:
    directory = Path(cgroup.hierarchy.mounts.get("memory", str(cgroup.hierarchy.unified)), cgroup.path)
    v2 = (directory / "memory.max").exists()
    (directory / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(8 << 20))
    swap = directory / ("memory.swap.max" if v2 else "memory.memsw.limit_in_bytes")
    if swap.exists():
        swap.write_text("0" if v2 else str(8 << 20))
    opened = cgroup.open()
    victim = cgroup.start("/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M")
    assert victim.wait(timeout=20) == -9
    reading = opened.memory()
    assert reading is not None
    assert reading.limit_bytes == 8 << 20
    assert reading.oom_events >= 1
    assert reading.oom_kills >= 1


@pytest.mark.parametrize("path", ["", "/", ".", "//", "..", "a/../..", "system.slice/..", "a\0b", "a\nb"])
def test_paths_that_are_not_plainly_below_the_root_are_refused(hierarchy: Hierarchy, path: str) -> None:
    with pytest.raises(CgroupUnusable, match="cannot manage"):
        hierarchy.open(path)


def test_a_cgroup_without_the_cpu_controller_is_named_as_such(cgroup: KernelCgroup) -> None:
    """On v1 a directory in the cpu hierarchy has CPU files by its nature, and waits for CPU accounting."""
    bare = cgroup.cpu / "bare"
    bare.mkdir()
    on_v2 = cgroup.hierarchy.version == "v2"
    co_mounted = cgroup.hierarchy.mounts.get("cpu") == cgroup.hierarchy.mounts.get("cpuacct")
    try:
        if on_v2:
            with pytest.raises(CgroupUnusable, match="controller is not enabled"):
                cgroup.hierarchy.open(f"{cgroup.path}/bare")
        elif co_mounted:
            cgroup.hierarchy.open(f"{cgroup.path}/bare").close()
        else:
            with pytest.raises(CgroupGone, match="bare"):
                cgroup.hierarchy.open(f"{cgroup.path}/bare")
    finally:
        bare.rmdir()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(13, CgroupDenied), (1, CgroupDenied), (30, CgroupDenied), (19, CgroupGone), (22, LimitRejected)],
)
def test_errno_becomes_a_kind_of_error(error: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="cannot do it"), kernel_errors("do it"):
        raise OSError(error, "because")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(OSError, match="Too many open files"), kernel_errors("do it"):
        raise OSError(24, "Too many open files")


def test_reading_keeps_up_with_a_hundred_cgroups_ten_times_a_second(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    start = time.process_time()
    for _ in range(1000):
        opened.read()
    # 1,000 reads a second are to cost at most a tenth of a core; measured: 7 ms.
    assert time.process_time() - start < 0.1
