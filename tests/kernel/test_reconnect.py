"""A controller that is back has its hosts back, also when it was not away for the first time."""

import signal
import time

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from escra_controller.client import QueryError
from tests.kernel_cgroups import throwaway

pytestmark = pytest.mark.kernel

CONTROLLER = '[apps.shop]\ncpu = 1\nmemory = "1GiB"\n'


def managed(pair: Pair) -> bool:
    try:
        return [row["state"] for row in pair.ask("ps")] == ["managed"]
    except QueryError:
        return False


def back_after_s(pair: Pair) -> float:
    pair.stop("controller", signal.SIGKILL)
    began = time.monotonic()
    pair.start("controller")
    pair.wait_until(lambda: managed(pair), "the container is managed again", 20)
    return time.monotonic() - began


def test_the_fourth_time_takes_no_longer_than_the_first(hierarchy: Hierarchy) -> None:
    with throwaway(hierarchy) as group:
        agent = f'[docker]\nenabled = false\n[[cgroup]]\npath = "{group.path}"\napp = "shop"\nname = "web"\n'
        with running_pair(CONTROLLER, agent, nice=-10) as pair:
            pair.wait_managed("web")
            took_s = []
            for _ in range(4):
                time.sleep(1.5)
                took_s.append(back_after_s(pair))
    assert max(took_s[2:]) < 3 * took_s[0] + 0.5, took_s
