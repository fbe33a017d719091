"""The demo from the first line to the verdict."""

import os
import sys

from escra_controller.demo import picture, virtual
from escra_controller.demo.children import DemoFailed
from escra_controller.demo.groups import NoCgroups
from escra_controller.demo.real import play_real
from escra_controller.demo.scene import Phase, Scene, scene_for
from escra_controller.demo.screen import Screen
from escra_controller.demo.stopping import Stop, Stopped, stop_on_signals

# Twice real time on a terminal, where somebody watches; at once in a log.
SIMULATED_PACE = 2.0


def play(seconds: float, *, simulated: bool = False) -> int:
    """Run both phases of ``seconds`` each, and show what came of them; the exit status."""
    with Screen() as screen, stop_on_signals() as stop:
        try:
            if simulated:
                return _simulated(seconds, screen, stop)
            try:
                return _real(seconds, screen, stop)
            except NoCgroups as error:
                screen.say(f"This demo needs cgroups of its own: {error}.")
                screen.say("Until then, here is the same scene on a simulated host.", "")
                return _simulated(seconds, screen, stop)
        except Stopped as stopped:
            screen.say("", f"Stopped by {stopped}; everything the demo started has been removed.")
            return stopped.status
        except DemoFailed as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1


def _real(seconds: float, screen: Screen, stop: Stop) -> int:
    scene = scene_for(len(os.sched_getaffinity(0)))
    screen.say(*_introduction(scene, seconds))
    fixed, escra = play_real(scene, seconds, screen, stop)
    screen.say("", *picture.summary(scene, fixed, escra, ascii_only=screen.ascii_only))
    return _status(scene, fixed, escra)


def _simulated(seconds: float, screen: Screen, stop: Stop) -> int:
    scene = scene_for(virtual.CPUS)

    def show(phase: Phase) -> None:
        stop.check()
        screen.show(scene, phase, seconds)

    screen.say("SIMULATED: no cgroup of this machine is touched, the times are those of a virtual clock.")
    screen.say(*_introduction(scene, seconds))
    phases = []
    for title, with_escra in (
        (f"Simulated: fixed limits, {scene.fixed_milli / 1000:.2f} cores each", False),
        ("Simulated: Escra, limits follow the work", True),
    ):
        screen.begin(title)
        pace = SIMULATED_PACE if screen.in_place else 0.0
        phases.append(virtual.run_phase(scene, title, seconds, show, with_escra=with_escra, pace=pace))
    fixed, escra = phases
    screen.say("", *picture.summary(scene, fixed, escra, simulated=True, ascii_only=screen.ascii_only))
    return _status(scene, fixed, escra)


def _introduction(scene: Scene, seconds: float) -> list[str]:
    names = ", ".join(scene.names)
    return [
        f"Three services ({names}) share one limit of {scene.omega_milli / 1000:.2f} cores.",
        f"One of them wants {scene.busy_milli / 1000:.2f} cores, the others {scene.calm_milli / 1000:.2f}; "
        f"which one changes every {scene.shift_s:.0f} s.",
        f"First {seconds:.0f} s with fixed limits, then {seconds:.0f} s with Escra, under the same load.",
    ]


def _status(scene: Scene, fixed: Phase, escra: Phase) -> int:
    return 0 if picture.held(scene, escra) and picture.better(fixed, escra) else 1
