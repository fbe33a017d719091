"""Where the demo's picture goes: redrawn in place on a terminal, else one line a second."""

import os
import shutil
import sys
from types import TracebackType

import click

from escra_controller.demo import picture
from escra_controller.demo.scene import Phase, Scene
from escra_controller.render import Paint, Tone, plain

_LEAST_COLUMNS = 80
_COLOURS: dict[Tone, str] = {"good": "green", "warn": "yellow", "bad": "red", "dim": "bright_black"}


class Screen:
    """Prints to stdout.  As a context manager it gives the terminal its cursor back."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.in_place = terminal and shutil.get_terminal_size().columns >= _LEAST_COLUMNS
        self._paint: Paint = _paint if terminal and not os.environ.get("NO_COLOR") else plain
        self.ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
        self._drawn = 0
        self._logged_s = 0

    def __enter__(self) -> "Screen":
        if self.in_place:
            self._write("\x1b[?25l")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.in_place:
            self._write("\x1b[?25h")

    def say(self, *lines: str) -> None:
        """Text that stays."""
        self._drawn, self._logged_s = 0, 0
        self._write("".join(f"{line}\n" for line in lines))

    def begin(self, title: str) -> None:
        """A phase begins; the picture in place has its title in it."""
        if self.in_place:
            self.say("")
        else:
            self.say("", title, picture.LOG_LEGEND)

    def show(self, scene: Scene, phase: Phase, seconds: float) -> None:
        """The present state of a phase."""
        at_s = phase.frames[-1].at_s
        if self.in_place:
            lines = picture.live(scene, phase, seconds, paint=self._paint, ascii_only=self.ascii_only)
            up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
            self._write(up + "".join(f"{line}\n" for line in lines))
            self._drawn = len(lines)
        elif at_s >= self._logged_s + 1:
            self._write(picture.log_line(scene, phase) + "\n")
            self._logged_s = int(at_s)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _paint(text: str, tone: Tone) -> str:
    return click.style(text, fg=_COLOURS[tone])
