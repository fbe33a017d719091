"""Credit on the real kernel: relief without the controller."""

import signal
import sys
import time
from pathlib import Path

import pytest

import benchmarks.load
from benchmarks.pair import running_pair
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import throwaway

pytestmark = pytest.mark.kernel

LOAD = str(Path(benchmarks.load.__file__))
OMEGA = 4000
CONTROLLER = f'grace_s = 0\n[policy]\ncredit = 0.5\n[apps.shop]\ncpu = {OMEGA / 1000}\nmemory = "1GiB"\n'


def test_one_with_credit_is_relieved_while_the_controller_stands_still(hierarchy: Hierarchy) -> None:
    with throwaway(hierarchy) as group:
        cgroup = group.open()

        def milli() -> int:
            held = cgroup.read_limit()
            return 0 if held.quota_usec is None else held.quota_usec * 1000 // held.period_usec

        agent = f'[docker]\nenabled = false\n[[cgroup]]\npath = "{group.path}"\napp = "shop"\nname = "web"\n'
        with running_pair(CONTROLLER, agent) as pair:
            pair.wait_managed("web")
            # Half a second of a whole core, then more than one with a tenth.
            group.start(sys.executable, LOAD, "0.5", "2.5", "0.1", "1")
            pair.wait_until(lambda: milli() > 600, "it has what it needs in a burst", 10)
            pair.wait_until(lambda: 0 < milli() < 250, "its limit followed it down", 10)
            controller = pair.processes["controller"]
            controller.send_signal(signal.SIGSTOP)
            try:
                low = milli()
                pair.wait_until(lambda: milli() > max(600, 2 * low), "raised on credit", 8)
                assert milli() <= OMEGA
                time.sleep(0.5)
            finally:
                controller.send_signal(signal.SIGCONT)
            pair.wait_until(
                lambda: (
                    "credit"
                    in {d["rule"] for d in pair.ask("explain", container="web", limit=50)["decisions"]}
                ),
                "the controller knows of it",
                5,
            )
        cgroup.close()
