"""Memory that comes and goes, for one process: run by the benchmarks inside a cgroup.

    python breathe.py MOST_MIB SEED

Grows to some size up to MOST_MIB, holds it for a while and gives it back, again and again.
"""

import mmap
import random
import sys
import time

MIB = 1 << 20


def main(most_mib: int, seed: int) -> None:
    draw = random.Random(seed)
    memory = mmap.mmap(-1, most_mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    while True:
        for mib in range(draw.randrange(most_mib // 4, most_mib)):
            memory[mib * MIB : (mib + 1) * MIB] = b"\1" * MIB
            time.sleep(0.01)
        time.sleep(draw.uniform(0.5, 2.0))
        memory.madvise(mmap.MADV_DONTNEED)
        time.sleep(draw.uniform(0.2, 1.0))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
