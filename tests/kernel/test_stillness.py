"""A processor that does not run is noticed: what is charged meanwhile is no limit's doing."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks.stillness import Stillness
from tests.needs import unavailable

pytestmark = pytest.mark.kernel

# Goes before the sleepers, for 30 ms: to them it is as if their processor had been taken away.
_HOG = """
import os, time
os.sched_setaffinity(0, {0})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(95))
began = time.monotonic()
while time.monotonic() < began + 0.03:
    pass
print(int(began * 1e6))
""".replace("{0}", f"{{{min(os.sched_getaffinity(0))}}}")


def test_a_processor_that_stands_still_is_noticed() -> None:
    if os.geteuid() != 0:
        unavailable("kernel", "realtime priority needs root")
    with Stillness() as stillness:
        time.sleep(0.5)  # until they sleep
        began = int(subprocess.run([sys.executable, "-c", _HOG], capture_output=True, check=True).stdout)
        deadline = time.monotonic() + 5
        while (seen := stillness.usec(began - 2000, began + 60_000)) < 25_000:
            assert time.monotonic() < deadline, f"{seen} us of 30 ms"
            time.sleep(0.01)
        assert stillness.usec(began + 31_000, began + 31_000) == 0
        # The half of a time is in half of the window.
        assert 5_000 < stillness.usec(began, began + 15_000) < seen
