"""Where growth episodes take place: several cgroups at a time, with the kernel alone or with Escra."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.growth import LIMIT_BYTES, Episode, Growth, Outcome, Programs
from benchmarks.kernel_memory import KernelMemory, OmegaWatch
from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup

# Cgroups that exist at the same time, and how fast all of them together may grow: one after the other at
# the highest rate, so that the machine itself can give it.
SLOTS = 8
TOGETHER_MIB_S = 512
# Between holding the base and growing: the base is not part of the growth.
SETTLE_S = 0.3
# Between the starts of those that grow together: staircases shall not all jump at once.
STAGGER_S = 0.015
# More than all slots are ever given, so that the pool always has memory.  What they use fits into 1 GiB.
OMEGA_BYTES = 8 << 30


@contextmanager
def running_escra(slots: Mapping[str, str], omega_bytes: int) -> Iterator[Pair]:
    """Both daemons, and an application of these cgroups, by name; they may come and go."""
    cpus = os.cpu_count() or 1
    entries = [
        # The floor is all processors: no stall is for want of CPU.
        f'[[cgroup]]\npath = "{path}"\napp = "oom"\nname = "{name}"\ncpu_min = {cpus}\n'
        for name, path in slots.items()
    ]
    with running_pair(
        f'grace_s = 0.2\n[apps.oom]\ncpu = {2 * cpus * len(slots)}\nmemory = "{omega_bytes}B"\n',
        "[docker]\nenabled = false\n" + "".join(entries),
        nice=-10,  # as its unit sets it
    ) as pair:
        yield pair


def wait_memory_managed(pair: Pair, names: Sequence[str]) -> None:
    def managed() -> bool:
        rows = pair.rows()
        return all(name in rows and rows[name]["memory"]["managed"] for name in names)

    pair.wait_until(managed, f"the memory of {', '.join(names)} is managed")


class Stage:
    """``answers_s`` are the times from the kernel's notice to a raised limit, of all episodes so far."""

    def __init__(self, hierarchy: Hierarchy, programs: Programs) -> None:
        self.answers_s: list[float] = []
        self._hierarchy = hierarchy
        self._programs = programs
        self._slots = {f"slot{n}": f"escra-oom-{os.getpid()}-{n}" for n in range(SLOTS)}
        self._pair: Pair | None = None
        self._watch = OmegaWatch(hierarchy, OMEGA_BYTES)

    @contextmanager
    def managed(self) -> Iterator[OmegaWatch]:
        """With Escra in this block."""
        with running_escra(self._slots, OMEGA_BYTES) as self._pair, self._watch:
            yield self._watch
        self._pair = None

    def play(self, growths: Sequence[Growth], *, limited: bool = True) -> list[Outcome]:
        """One outcome for each, in order."""
        outcomes: list[Outcome] = []
        for start in range(0, len(growths), SLOTS):
            outcomes += self._play_batch(growths[start : start + SLOTS], limited)
        return outcomes

    def _play_batch(self, growths: Sequence[Growth], limited: bool) -> list[Outcome]:
        names = list(self._slots)[: len(growths)]
        with tempfile.TemporaryDirectory(prefix="escra-oom-") as folder, ExitStack() as stack:
            groups = [self._group(stack, name, limited) for name in names]
            if self._pair is not None:
                wait_memory_managed(self._pair, names)
                self._watch.paths = [group.path for group in groups]
            episodes = []
            for group, growth, name in zip(groups, growths, names, strict=True):
                episodes.append(Episode(group, growth, self._programs, Path(folder, name)))
                # One after the other: eight interpreters that start at once are another benchmark.
                episodes[-1].wait_ready()
            time.sleep(SETTLE_S)
            outcomes = _release(episodes)
            self._collect_answers(names)
            self._watch.paths = ()
        self._wait_gone(names)
        return outcomes

    def _group(self, stack: ExitStack, name: str, limited: bool) -> KernelCgroup:
        group = KernelCgroup(self._hierarchy, self._slots[name])
        stack.callback(group.remove)
        if limited:
            KernelMemory(self._hierarchy, group.path).set_limit(LIMIT_BYTES)
        return group

    def _collect_answers(self, names: Sequence[str]) -> None:
        if self._pair is None:
            return
        for name in names:
            for decision in self._pair.ask("explain", container=name, limit=50)["decisions"]:
                answer_ms = decision["numbers"].get("answer_ms")
                if (decision["resource"], decision["rule"]) == ("memory", "grow") and answer_ms is not None:
                    self.answers_s.append(answer_ms / 1000)

    def _wait_gone(self, names: Sequence[str]) -> None:
        """The next cgroup under the same name is another one."""
        if (pair := self._pair) is not None:
            pair.wait_until(lambda: not set(names) & pair.rows().keys(), "removed cgroups are not listed")


def _release(episodes: Sequence[Episode]) -> list[Outcome]:
    """As many at the same time as the machine can bear."""
    outcomes: list[Outcome] = []
    width = max(1, TOGETHER_MIB_S // episodes[0].growth.mib_per_s)
    for start in range(0, len(episodes), width):
        together = episodes[start : start + width]
        for episode in together:
            episode.go()
            time.sleep(STAGGER_S)
        outcomes += [episode.outcome() for episode in together]
    return outcomes
