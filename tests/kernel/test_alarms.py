"""Alarms on the real kernel: who runs out of quota is raised before the tick says so."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import benchmarks.load
from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import throwaway

pytestmark = pytest.mark.kernel

LOAD = str(Path(benchmarks.load.__file__))
FALLING = "[policy]\nshrink_every_s = 0.1\nshrink_window_s = 0.3\n"
CONTROLLER = f'grace_s = 0\n{FALLING}[apps.shop]\ncpu = 8\nmemory = "1GiB"\n'
ALARM = "its quota will not do for the period under way"


@contextmanager
def swinging(hierarchy: Hierarchy, agent: str) -> Iterator[Pair]:
    """One container with bursts of a whole core, and a tenth of one in between."""
    with throwaway(hierarchy) as group:
        entry = f'[docker]\nenabled = false\n[[cgroup]]\npath = "{group.path}"\napp = "shop"\nname = "web"\n'
        with running_pair(CONTROLLER, agent + entry, nice=-10) as pair:
            pair.wait_managed("web")
            group.start(sys.executable, LOAD, "0.3", "1.0", "0.1", "1")
            yield pair


def causes(pair: Pair) -> list[str]:
    return [d["cause"] for d in pair.ask("explain", container="web", limit=64)["decisions"]]


def test_who_runs_out_of_quota_is_raised_within_the_period(hierarchy: Hierarchy) -> None:
    with swinging(hierarchy, "") as pair:
        pair.wait_until(lambda: sum(ALARM in cause for cause in causes(pair)) >= 3, "three alarms", 20)


def test_without_alarms_the_tick_tells(hierarchy: Hierarchy) -> None:
    with swinging(hierarchy, "alarms = false\n") as pair:
        pair.wait_until(
            lambda: sum("throttled in" in cause for cause in causes(pair)) >= 3, "three raises", 20
        )
        assert not any(ALARM in cause for cause in causes(pair))
