"""Pulling plugs while everything runs: a short run of the benchmark, with hosts in network namespaces."""

import os
import time
from collections.abc import Iterator

import pytest

from benchmarks import faults
from benchmarks.hostile import measure_hostile
from benchmarks.injuries import KINDS
from benchmarks.network import NoNetwork, running_network
from benchmarks.watcher import AppWatch, Watcher
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup, limit
from tests.needs import unavailable

pytestmark = pytest.mark.kernel

# Each takes five seconds; the benchmark does all of them, and longer.
ATTACKS = ("connections", "wrong-host", "huge-frames", "flood")
# The target is 20 ms, where the attackers do not use the same two processors.
DECISION_MS, RSS_MIB = 50.0, 256.0


@pytest.fixture(autouse=True)
def namespaces(hierarchy: Hierarchy) -> Iterator[None]:
    """Nothing may be left of them."""
    try:
        with running_network(["probe"]):
            pass
    except NoNetwork as error:
        unavailable("kernel", str(error))
    yield
    left = [name for name in os.listdir("/run/netns") if name.startswith(f"escra-{os.getpid()}-")]
    assert left == []


def test_omega_holds_whatever_is_killed_stopped_cut_off_or_filled_up() -> None:
    """Promises 1, 4 and 7 on this machine's kernel, seen from outside."""
    result = faults.measure(quick=True, say=print, kinds=[kind.name for kind in KINDS])
    assert [row["kind"] for row in result["faults"]] == [kind.name for kind in KINDS]
    for row in result["faults"]:
        assert row["omega_violations"] == 0, row
        assert row["lost_containers"] == 0, row
        assert row["checks"] > 50, f"the kernel's files were added up all the time: {row}"
        assert row["moves"] > 0, row
        # 2 % is for a machine that does nothing else, and an Ω of which one late millisecond is not 1 %; an
        # Ω that is not kept is seen in ``omega_violations``, and careless writing is worth 70 % and more.
        assert row["use_ratio_explained"] < 1.15, row
        # Where the machine did not stand still, less was seen in larger runs.
        assert row["use_ratio_running"] < 1.05, row
        if row["kind"] == "partition60":
            assert row["recovery_ms"]["max"] < 3000, row
    assert sum(row["windows_running"] for row in result["faults"]) > 0, "it ran at some time"
    # A limit may rest for seconds; those of nearly all do not, whoever else is in trouble.
    assert sum(row["stood_still"] for row in result["faults"]) <= 2, result


def test_who_attacks_the_port_does_not_hold_up_the_others() -> None:
    """What fails once may be this machine's doing: it is to fail three times."""
    slow = list(ATTACKS)
    for _ in range(3):
        rows = measure_hostile(slow, 3.0, print)
        assert all(row["rss_mib"] < RSS_MIB for row in rows), rows
        assert all(row["log_kib"] < 1024 for row in rows), rows
        slow = [row["kind"] for row in rows if row["decision_ms"]["p99"] >= DECISION_MS]
        if not slow:
            return
    pytest.fail(f"{slow}: {rows}")


def test_the_watcher_sees_what_is_too_much(cgroup: KernelCgroup) -> None:
    """Limits of two cgroups, and what they use, above what an application has."""
    groups = [cgroup.child("a"), cgroup.child("b")]
    opened = [group.open() for group in groups]
    for each in opened:
        each.write_limit(limit(0.2))
    paths = {name: group.path for name, group in zip("ab", groups, strict=True)}
    watch = AppWatch(cgroup.hierarchy, paths, 0.4, 1 << 62)
    try:
        with Watcher([watch]):
            time.sleep(0.3)
            # No limit of memory is infinitely much.
            assert watch.take().violations > 10
            watch.omega = watch.omega._replace(memory_bytes=float("inf"))
            time.sleep(0.3)
            watch.take()
            time.sleep(0.3)
            seen = watch.take()
            assert (seen.violations, seen.moves) == (0, 0)
            assert seen.checks > 10
            groups[0].busy()
            for n in range(30):
                opened[0].write_limit(limit(0.25 if n % 2 else 0.2))
                opened[1].write_limit(limit(0.15 if n % 2 else 0.2))
                time.sleep(0.05)
            seen = watch.take()
            # Between the two writes it is too much, and again at each way back it is too little.
            assert seen.moves > 20
            opened[0].write_limit(limit(0.9))
            time.sleep(1.5)
            seen = watch.take()
            assert seen.violations > 50
            assert seen.use_ratio_explained > 1.1
            assert "; b 0.0 ms in" in seen.worst, "and who was it?"
            assert watch.moves_at["a"][-1] > watch.moves_at["b"][-1]
    finally:
        watch.close()
        for each in opened:
            each.close()
