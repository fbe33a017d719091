"""CPU load with a rhythm, for one process: run by the benchmarks inside a cgroup.

    python load.py BURST_S PAUSE_S LOW_SHARE SEED

Bursts of full use alternate with pauses of about PAUSE_S (half to one and a half of it), in which LOW_SHARE
of a core is used in slices of 20 ms.
"""

import random
import sys
import time


def spin(until: float) -> None:
    while time.monotonic() < until:
        pass


def main(burst_s: float, pause_s: float, low_share: float, seed: int) -> None:
    draw = random.Random(seed)
    while True:
        spin(time.monotonic() + burst_s)
        end = time.monotonic() + pause_s * draw.uniform(0.5, 1.5)
        while (now := time.monotonic()) < end:
            spin(now + 0.02 * low_share)
            time.sleep(0.02 * (1 - low_share))


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
