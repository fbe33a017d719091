"""Both daemons over two cgroups, as several files of tests want them."""

import contextlib
import time
from collections.abc import Iterator

from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from escra_controller.state import limit_millicores
from tests.kernel_cgroups import KernelCgroup, limit, throwaway

OMEGA = 1500
NAMES = ("a", "b")
CONTROLLER = f'grace_s = 0.2\n[apps.shop]\ncpu = {OMEGA / 1000}\nmemory = "1GiB"\n'


class Scene:
    """Two cgroups with the application ``shop`` over them; ``b`` came with a limit of 0.4 cores."""

    def __init__(self, hierarchy: Hierarchy, groups: list[KernelCgroup], pair: Pair) -> None:
        self.hierarchy = hierarchy
        self.groups = dict(zip(NAMES, groups, strict=True))
        self.cgroups = {name: group.open() for name, group in self.groups.items()}
        self.pair = pair

    def milli(self, name: str) -> int | None:
        return limit_millicores(self.cgroups[name].read_limit())

    def settled(self, name: str) -> int:
        milli = self.milli(name)
        assert milli is not None
        return milli

    def highest(self, name: str) -> int:
        """Over twelve periods: its file may say what is left of one, and less in the ten after a loan."""
        end, highest = time.monotonic() + 1.2, 0
        while time.monotonic() < end:
            highest = max(highest, self.settled(name))
            time.sleep(0.002)
        return highest

    def total(self) -> int:
        """The sum of the limits as they were at one moment: two equal rounds in a row."""
        before = [self.settled(name) for name in NAMES]
        while (now := [self.settled(name) for name in NAMES]) != before:
            before = now
        return sum(now)

    def agent_toml(self, *names: str, on_stop: str = "hold") -> str:
        entries = [
            f'[[cgroup]]\npath = "{self.groups[name].path}"\napp = "shop"\nname = "{name}"\n'
            for name in names
        ]
        return f'[docker]\nenabled = false\n[fallback]\non_stop = "{on_stop}"\n' + "".join(entries)


@contextlib.contextmanager
def running_scene(hierarchy: Hierarchy) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        groups = [stack.enter_context(throwaway(hierarchy)) for _ in NAMES]
        pair = stack.enter_context(running_pair(CONTROLLER, "", start=False))
        made = Scene(hierarchy, groups, pair)
        made.cgroups["b"].write_limit(limit(0.4))
        pair.write_config("agent", made.agent_toml(*NAMES))
        pair.start()
        pair.wait_managed(*NAMES)
        yield made
        for cgroup in made.cgroups.values():
            cgroup.close()
