"""An application without free memory: the container that grows is killed, and nobody else notices."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.growth import LIMIT_BYTES, Episode, Growth, Programs
from benchmarks.kernel_memory import OmegaWatch
from benchmarks.stage import running_escra, wait_memory_managed
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup, throwaway

NAMES = ("grower", "left", "right")
GROWTH = Growth("steady", "c", 1, 128)
# Of a limit of 64 MiB: what is left is less than anybody could give.
HELD_MIB = 62
# How long the others must live on, and how much the kernel's own counting may move.
AFTER_S = 1.0
COUNTING_BYTES = 1 << 20


def run_dry(hierarchy: Hierarchy, programs: Programs) -> tuple[dict[str, Any], OmegaWatch]:
    """Three containers hold all of Ω and one grows: who was killed, who lives on with the same memory."""
    omega_bytes = len(NAMES) * LIMIT_BYTES
    with tempfile.TemporaryDirectory(prefix="escra-oom-") as folder, ExitStack() as stack:
        groups = [stack.enter_context(throwaway(hierarchy)) for _ in NAMES]
        episodes = {
            name: _holding(group, programs, Path(folder, name))
            for name, group in zip(NAMES, groups, strict=True)
        }
        slots = {name: group.path for name, group in zip(NAMES, groups, strict=True)}
        pair = stack.enter_context(running_escra(slots, omega_bytes))
        watch = stack.enter_context(OmegaWatch(hierarchy, omega_bytes))
        wait_memory_managed(pair, NAMES)
        watch.paths = list(slots.values())
        held = {name: episode.memory.used() for name, episode in episodes.items()}
        episodes["grower"].go()
        episodes["grower"].outcome()
        time.sleep(AFTER_S)
        killed = [name for name, episode in episodes.items() if episode.memory.oom_kills()]
        survived = [
            name
            for name, episode in episodes.items()
            if episode.running and abs(episode.memory.used() - held[name]) < COUNTING_BYTES
        ]
    return {"killed": killed, "survived": survived}, watch


def _holding(group: KernelCgroup, programs: Programs, report: Path) -> Episode:
    episode = Episode(group, GROWTH, programs, report, HELD_MIB)
    episode.memory.set_limit(LIMIT_BYTES)
    episode.wait_ready()
    return episode
