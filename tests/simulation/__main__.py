"""``python -m tests.simulation --seeds N [--seed K] [--plant NAME]``: see README, "How it is proved"."""

import sys
import time

from tests.simulation import edges
from tests.simulation.scenario import make
from tests.simulation.world import World

if __name__ == "__main__":
    edges.install()
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        began = time.process_time()
        world = World(make(seed))
        print(seed, repr(world.run()), world.digest, f"{world.clockwork.now:.1f}", f"{time.process_time() - began:.3f}")
        if world.broken:
            print("\n".join(str(s) for s in world.scenario.steps))
            print("\n".join(world.events))
            break
