"""Quota of a period that nobody would use goes to who runs dry, on the real kernel."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.cgroupfs import Cgroup
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuLimit
from tests.kernel_cgroups import throwaway

pytestmark = pytest.mark.kernel

# Two fixed limits of half of Ω each: what one gets above it the other has lent.
OMEGA = 0.4
CONTROLLER = f'grace_s = 0\n[policy]\nname = "static"\n[apps.shop]\ncpu = {OMEGA}\nmemory = "1GiB"\n'
WINDOW_S, STEP_S = 1.0, 0.005


@contextmanager
def two(hierarchy: Hierarchy, agent: str, of_busy: str = "") -> Iterator[tuple[Pair, list[Cgroup]]]:
    """One that would use a whole core, one that uses some hundredths, each at half of Ω."""
    with throwaway(hierarchy) as busy, throwaway(hierarchy) as calm:
        entries = "".join(
            f'[[cgroup]]\npath = "{group.path}"\napp = "shop"\nname = "{name}"\n{more}'
            for group, name, more in ((busy, "busy", of_busy), (calm, "calm", ""))
        )
        with running_pair(CONTROLLER, f"{agent}[docker]\nenabled = false\n{entries}", nice=-10) as pair:
            pair.wait_managed("busy", "calm")
            busy.busy()
            calm.start("/bin/sh", "-c", "while :; do for i in 1 2 3 4 5 6 7 8; do :; done; sleep 0.05; done")
            opened = [busy.open(), calm.open()]
            time.sleep(1.0)
            try:
                yield pair, opened
            finally:
                for group in opened:
                    group.close()


class Seen(NamedTuple):
    """``used`` by each, in cores; the highest sum of limits, and the worst window of what both used."""

    used: list[float]
    limits: float
    window: float


def watched(groups: list[Cgroup], seconds: float) -> Seen:
    times: list[float] = []
    used: list[list[float]] = []
    most = worst = 0.0
    first, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        readings = [group.read() for group in groups]
        if [reading.limit for reading in readings] == [group.read_limit() for group in groups]:
            most = max(most, sum((r.limit.quota_usec or 0) / r.limit.period_usec for r in readings))
        times.append(readings[0].time_usec / 1e6)
        used.append([reading.usage_usec / 1e6 for reading in readings])
        while times[-1] - times[first] > WINDOW_S:
            first += 1
        if first:
            span = times[-1] - times[first - 1]
            worst = max(worst, (sum(used[-1]) - sum(used[first - 1])) / span)
        time.sleep(STEP_S)
    span = times[-1] - times[0]
    return Seen([(used[-1][n] - used[0][n]) / span for n in range(len(groups))], most, worst)


def test_who_runs_dry_uses_what_others_leave_and_the_sum_stays(hierarchy: Hierarchy) -> None:
    with two(hierarchy, "") as (_, groups):
        seen = watched(groups, 5.0)
        assert seen.used[0] > 1.3 * OMEGA / 2, seen
        assert seen.limits <= OMEGA + 1e-9, seen
        assert seen.window <= 1.02 * OMEGA, seen


@pytest.mark.parametrize("by", ["disarm", "the next agent"])
def test_what_a_killed_agent_had_lent_is_made_whole(hierarchy: Hierarchy, by: str) -> None:
    with two(hierarchy, "") as (pair, groups):
        whole = [CpuLimit(round(OMEGA / 2 * 100_000), 100_000)] * 2
        end = time.monotonic() + 20
        while True:
            # A loan is over within a period: the kill comes when one was seen, and mostly in time.
            while groups[1].read_limit() == whole[1]:
                assert time.monotonic() < end, "nobody lends"
            pair.stop("agent", signal.SIGKILL)
            if groups[1].read_limit() != whole[1]:
                break
            pair.start("agent")
            pair.wait_managed("busy", "calm")
        if by == "disarm":
            command = [sys.executable, "-m", "escra_agent.daemon", "disarm", "--config", "agent.toml"]
            subprocess.run(command, cwd=pair.folder, check=True)
            assert [group.read_limit() for group in groups] == whole
        else:
            pair.start("agent")
            pair.wait_managed("busy", "calm")
            in_force = {row["name"]: row["cpu"]["limit_cores"] for row in pair.rows().values()}
            assert in_force == {"busy": OMEGA / 2, "calm": OMEGA / 2}


def test_without_lending_each_has_its_own(hierarchy: Hierarchy) -> None:
    with two(hierarchy, "lending = false\n") as (_, groups):
        seen = watched(groups, 3.0)
        assert seen.used[0] < 1.05 * OMEGA / 2, seen


def test_nobody_gets_above_his_ceiling_by_it(hierarchy: Hierarchy) -> None:
    with two(hierarchy, "", f"cpu_max = {0.6 * OMEGA}\n") as (_, groups):
        seen = watched(groups, 3.0)
        assert seen.used[0] < 1.02 * 0.6 * OMEGA, seen
