"""An application whose pool is empty: who helps the container that grows, and who dies when nobody can."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.growth import LIMIT_BYTES, Episode, Growth, Outcome, Programs
from benchmarks.kernel_memory import OmegaWatch
from benchmarks.stage import running_escra, wait_memory_managed
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup, throwaway

GROWER, OTHERS = "grower", ("left", "right")
NAMES = (GROWER, *OTHERS)
MIB = 1 << 20
# Of a limit of 64 MiB: what is left is less than anybody could give.
HELD_MIB = 62
# What the others hold for nothing, enough for the fastest growth.
IDLE_MIB, IDLE_LIMIT_BYTES = 16, 224 * MIB
# How long the others must live on, and how much the kernel's own counting may move.
AFTER_S = 1.0
COUNTING_BYTES = 1 << 20


def run_dry(hierarchy: Hierarchy, programs: Programs) -> tuple[dict[str, Any], OmegaWatch]:
    """Three containers use all of Ω and one grows: who was killed, who lives on with the same memory."""
    growth = Growth("steady", "c", 1, 128)
    limits = dict.fromkeys(NAMES, LIMIT_BYTES)
    with _holding(hierarchy, programs, growth, limits, dict.fromkeys(NAMES, HELD_MIB)) as (episodes, watch):
        held = {name: episode.memory.used() for name, episode in episodes.items()}
        episodes[GROWER].go()
        episodes[GROWER].outcome()
        time.sleep(AFTER_S)
        killed = [name for name, episode in episodes.items() if episode.memory.oom_kills()]
        survived = [
            name
            for name, episode in episodes.items()
            if episode.running and abs(episode.memory.used() - held[name]) < COUNTING_BYTES
        ]
    return {"killed": killed, "survived": survived}, watch


def run_reclaim(hierarchy: Hierarchy, programs: Programs, mib_per_s: int) -> tuple[Outcome, OmegaWatch]:
    """Two containers hold nearly all of Ω and use little of it: how it ends for the one that grows."""
    growth = Growth("steady", "c", 1, mib_per_s)
    limits = dict.fromkeys(OTHERS, IDLE_LIMIT_BYTES) | {GROWER: LIMIT_BYTES}
    base_mib = dict.fromkeys(OTHERS, IDLE_MIB) | {GROWER: LIMIT_BYTES * 3 // 4 // MIB}
    with _holding(hierarchy, programs, growth, limits, base_mib) as (episodes, watch):
        episodes[GROWER].go()
        outcome = episodes[GROWER].outcome()
        assert all(episodes[name].running for name in OTHERS), "who gave was harmed by it"
    return outcome, watch


@contextmanager
def _holding(
    hierarchy: Hierarchy,
    programs: Programs,
    growth: Growth,
    limits: Mapping[str, int],
    base_mib: Mapping[str, int],
) -> Iterator[tuple[dict[str, Episode], OmegaWatch]]:
    """Containers with these limits, which together are Ω, in which programs hold so much."""
    with tempfile.TemporaryDirectory(prefix="escra-oom-") as folder, ExitStack() as stack:
        episodes: dict[str, Episode] = {}
        slots: dict[str, str] = {}
        for name in NAMES:
            group: KernelCgroup = stack.enter_context(throwaway(hierarchy))
            episodes[name] = Episode(group, growth, programs, Path(folder, name), base_mib[name])
            episodes[name].memory.set_limit(limits[name])
            episodes[name].wait_ready()
            slots[name] = group.path
        omega_bytes = sum(limits.values())
        pair = stack.enter_context(running_escra(slots, omega_bytes))
        watch = stack.enter_context(OmegaWatch(hierarchy, omega_bytes))
        wait_memory_managed(pair, NAMES)
        watch.paths = list(slots.values())
        yield episodes, watch
