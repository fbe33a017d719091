"""The demo on this machine's own cgroups."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from escra_controller.demo.children import Daemons, Workers, daemons
from escra_controller.demo.groups import Group, demo_groups, limits_at_one_moment
from escra_controller.demo.scene import Frame, Phase, Scene
from escra_controller.demo.screen import Screen
from escra_controller.demo.stopping import Stop

FRAME_S = 0.025
SHOWN_EVERY = 10


def play_real(scene: Scene, seconds: float, screen: Screen, stop: Stop) -> tuple[Phase, Phase]:
    """Both phases, fixed limits first; raises NoCgroups before anything is started."""
    with ExitStack() as stack:
        groups = stack.enter_context(demo_groups(scene.names))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="escra-demo-")))
        for group in groups:
            group.limit(scene.fixed_milli)
        stage = _Stage(scene, seconds, groups, screen, stop)
        fixed = stage.run(f"Fixed limits: {scene.fixed_milli / 1000:.2f} cores each")
        pair = stack.enter_context(daemons(scene, groups, folder))
        pair.wait_until_managed(len(groups), stop)
        return fixed, stage.run("Escra: limits follow the work", pair)


class _Stage:
    def __init__(
        self, scene: Scene, seconds: float, groups: Sequence[Group], screen: Screen, stop: Stop
    ) -> None:
        self._scene = scene
        self._seconds = seconds
        self._groups = groups
        self._screen = screen
        self._stop = stop

    def run(self, title: str, pair: Daemons | None = None) -> Phase:
        """The scene once from its beginning."""
        phase = Phase(title)
        self._screen.begin(title)
        with ExitStack() as stack:
            workers = Workers(self._scene, self._seconds, self._groups, stack)
            while (left := workers.start - time.monotonic()) > 0:
                self._stop.check()
                time.sleep(min(left, 0.1))
            psutil.cpu_times_percent()  # the next call tells about the time from here on
            number = 0
            while (at_s := time.monotonic() - workers.start) < self._seconds:
                self._stop.check()
                phase.frames.append(self._frame(at_s))
                workers.check()
                if pair is not None:
                    pair.check()
                if number % SHOWN_EVERY == 0:
                    self._screen.show(self._scene, phase, self._seconds)
                number += 1
                time.sleep(max(0.0, workers.start + number * FRAME_S - time.monotonic()))
            phase.idle = psutil.cpu_times_percent().idle / 100
            phase.work = workers.work()
        return phase

    def _frame(self, at_s: float) -> Frame:
        limits = limits_at_one_moment(self._groups)
        named = zip(self._scene.names, self._groups, limits, strict=True)
        return Frame(at_s, {name: group.read(limit) for name, group, limit in named})
