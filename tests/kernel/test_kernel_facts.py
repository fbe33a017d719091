"""The kernel's behaviour that the design rests on, shown on this machine's kernel.

The numbers (K3 ...) are the ones that comments in the code refer to.  Should one of these fail
on a newer kernel, the code that relies on it is to be looked at again.
"""

import errno
import os
import statistics
import time

import pytest

from escra_agent.cgroupfs import Cgroup, Counters
from escra_agent.errors import LimitRejected
from escra_common.messages import CpuLimit
from tests.kernel_cgroups import KernelCgroup, cores_used, limit

pytestmark = pytest.mark.kernel

LIMIT = 0.2
SECONDS = 2.0


def quota_file(cgroup: KernelCgroup) -> str:
    v2 = cgroup.cpu / "cpu.max"
    return str(v2 if v2.exists() else cgroup.cpu / "cpu.cfs_quota_us")


def burst_file(cgroup: KernelCgroup) -> str:
    v2 = cgroup.cpu / "cpu.max.burst"
    return str(v2 if v2.exists() else cgroup.cpu / "cpu.cfs_burst_us")


def put(path: str, value: int) -> None:
    """A plain write, as any program would do it."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def test_k3_rewriting_the_same_limit_lets_a_group_use_far_more(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(LIMIT))
    cgroup.busy()
    honest = cores_used(opened, SECONDS)
    rewritten = cores_used(opened, SECONDS, lambda: put(quota_file(cgroup), round(LIMIT * 100_000)))
    print(f"limit {LIMIT}: {honest:.3f} cores, rewritten every 50 ms {rewritten:.3f}")
    assert honest < LIMIT * 1.1
    assert rewritten > LIMIT * 1.6


def test_k3_our_own_write_of_the_limit_in_force_is_none(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(LIMIT))
    cgroup.busy()
    assert cores_used(opened, SECONDS, lambda: opened.write_limit(limit(LIMIT))) < LIMIT * 1.1
    assert opened.writes == 1


def test_k3_a_write_voids_what_a_processor_had_in_hand_of_the_old_quota(cgroup: KernelCgroup) -> None:
    """So what is used of a period in all is what was used before the write, and what was written."""
    opened = cgroup.open()
    cgroup.busy()
    after_usec: list[int] = []
    while len(after_usec) < 12:
        put(quota_file(cgroup), 20_000)
        begin = next_period(opened)
        while opened.read().usage_usec - begin.usage_usec < 11_000:
            time.sleep(0.0005)
        before_usec = opened.read().usage_usec
        put(quota_file(cgroup), 3_000)
        last = None
        while (now := opened.read()).nr_periods == begin.nr_periods:
            time.sleep(0.0005)
            last = now
        if last is not None:  # else this test was held up, and the period is over
            after_usec.append(last.usage_usec - before_usec)
    print("used after 3 ms were written:", sorted(after_usec))
    # Throttling is noticed at the scheduler's tick, which may be one of 4 ms: then 4 ms are used, and with
    # what is left of the slice in hand it would be 8.
    assert 2_000 < statistics.median(after_usec) < 6_000


def test_k3_a_write_forgives_by_how_much_the_last_period_was_overrun(cgroup: KernelCgroup) -> None:
    """A processor is stopped at a tick, and what it used until then is taken from the next period, or not."""
    opened = cgroup.open()
    cgroup.busy()

    def beyond_usec(rewrite: bool) -> float:
        """Of 20 periods of 11 ms, per period; what is used before a write is not of the last period."""
        put(quota_file(cgroup), 11_000)
        next_period(opened)
        begin, _ = boundary(opened)
        before_writes_usec = 0
        for step in range(20):
            last, first = boundary(opened)
            if rewrite:
                put(quota_file(cgroup), 11_000 + step % 2)
                before_writes_usec += first.usage_usec - last.usage_usec
        end, _ = boundary(opened)
        return (end.usage_usec - begin.usage_usec - before_writes_usec) / 21 - 11_000

    alone, rewritten = beyond_usec(rewrite=False), beyond_usec(rewrite=True)
    print(f"used beyond 11 ms: {alone:.0f} us in each period, {rewritten:.0f} us when written as each begins")
    assert alone < 300
    assert rewritten > alone + 200


def next_period(opened: Cgroup) -> Counters:
    return boundary(opened)[1]


def boundary(opened: Cgroup) -> tuple[Counters, Counters]:
    """The last reading before the next one, and the first one after it."""
    last = now = opened.read()
    while now.nr_periods == last.nr_periods:
        last = now
        time.sleep(0.0005)
        now = opened.read()
    return last, now


def test_k4_a_write_before_the_periods_end_hides_its_throttling_but_not_the_time(
    cgroup: KernelCgroup,
) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(LIMIT))
    cgroup.busy()

    def one_period(rewrite: bool) -> None:
        start = opened.read().nr_periods
        while opened.read().nr_periods == start:
            time.sleep(0.001)
        # 20 ms into the period the quota is used up; from 90 ms on it would be there again.
        time.sleep(0.09)
        if rewrite:
            put(quota_file(cgroup), round(LIMIT * 100_000))

    def throttling(rewrite: bool) -> tuple[float, int]:
        before = opened.read()
        for _ in range(20):
            one_period(rewrite)
        return grown(before, opened.read())

    honest, honest_usec = throttling(rewrite=False)
    hidden, hidden_usec = throttling(rewrite=True)
    print(
        f"throttled periods: {honest:.2f} of all, {honest_usec} us; rewritten {hidden:.2f}, {hidden_usec} us"
    )
    assert honest > 0.9
    assert hidden < 0.3
    assert hidden_usec > honest_usec / 2


def grown(before: Counters, after: Counters) -> tuple[float, int]:
    """The throttled share of the periods in between, and the throttled time."""
    periods = after.nr_periods - before.nr_periods
    share = (after.nr_throttled - before.nr_throttled) / max(1, periods)
    return share, after.throttled_usec - before.throttled_usec


def test_k5_counters_stand_still_while_the_group_is_idle(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    opened.write_limit(limit(LIMIT))
    cgroup.busy()
    cores_used(opened, 0.3)
    cgroup.stop()
    cores_used(opened, 0.3)
    start = opened.read().nr_periods
    assert start > 0
    cores_used(opened, 0.5)
    assert opened.read().nr_periods == start


def test_k8_the_burst_may_not_exceed_the_quota_in_either_order(cgroup: KernelCgroup) -> None:
    if not os.path.exists(burst_file(cgroup)):
        pytest.skip("this kernel is older than 5.14 and has no burst")
    opened = cgroup.open()
    opened.write_limit(limit(0.5, burst_usec=40_000))
    with pytest.raises(OSError, match="Invalid argument"):
        put(quota_file(cgroup), 30_000)
    with pytest.raises(OSError, match="Invalid argument"):
        put(burst_file(cgroup), 50_001)
    # Both ways in the right order, which is not the same.
    assert opened.write_limit(limit(0.3, burst_usec=30_000)) == limit(0.3, burst_usec=30_000)
    assert opened.write_limit(limit(0.6, burst_usec=60_000)) == limit(0.6, burst_usec=60_000)


def test_k9_a_child_above_its_parent(cgroup: KernelCgroup) -> None:
    parent, child = cgroup.open(), cgroup.child("child").open()
    parent.write_limit(limit(0.5))
    if cgroup.hierarchy.version == "v2":
        # Accepted, and without effect: the parent's limit holds.
        assert child.write_limit(limit(0.8)) == limit(0.8)
        cgroup.children[0].busy(2)
        assert cores_used(child, SECONDS) < 0.5 * 1.1
        return
    with pytest.raises(LimitRejected):
        child.write_limit(limit(0.8))
    child.write_limit(limit(0.4))
    with pytest.raises(LimitRejected):
        parent.write_limit(limit(0.3))
    # Up: the parent first.  Down: the child first.
    parent.write_limit(limit(0.9))
    child.write_limit(limit(0.8))
    child.write_limit(limit(0.2))
    parent.write_limit(limit(0.3))


def test_a_kept_descriptor_of_a_removed_cgroup_is_enodev(cgroup: KernelCgroup) -> None:
    directory = os.open(cgroup.cpu, os.O_RDONLY | os.O_DIRECTORY)
    stat = os.open("cpu.stat", os.O_RDONLY, dir_fd=directory)
    try:
        cgroup.remove()
        with pytest.raises(OSError, match="No such device") as read:
            os.pread(stat, 4096, 0)
        assert read.value.errno == errno.ENODEV
        with pytest.raises(FileNotFoundError):
            os.open("cpu.stat", os.O_RDONLY, dir_fd=directory)
    finally:
        os.close(stat)
        os.close(directory)


def test_k1_the_kernel_takes_absurdly_large_quotas_but_none_below_a_millisecond(cgroup: KernelCgroup) -> None:
    opened = cgroup.open()
    assert opened.write_limit(CpuLimit(10**9, 100_000)).quota_usec == 10**9
    with pytest.raises(LimitRejected):
        opened.write_limit(CpuLimit(999, 100_000))
    assert opened.write_limit(CpuLimit(1_000, 1_000_000)) == CpuLimit(1_000, 1_000_000)
