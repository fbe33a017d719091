"""The full screen: a terminal driven by Textual, on which the drawing is put line by line."""

import contextlib
import os
import sys

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from escra_controller.client import QueryError
from escra_controller.top.cells import Line, Look
from escra_controller.top.drawing import draw
from escra_controller.top.model import Top
from escra_controller.top.subscription import Lost, Subscription

_COLOURED: dict[Look, Style] = {
    "plain": Style(),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "chosen": Style(reverse=True),
}
_COLOURLESS: dict[Look, Style] = _COLOURED | {
    "good": Style(),
    "warn": Style(bold=True),
    "bad": Style(bold=True),
}
WHEEL_LINES = 3


def show(subscription: Subscription, *, sort: str, words: str, interval_s: float, colour: bool) -> None:
    """Until the person at it has enough.  Raises QueryError when there was no controller to begin with."""
    for fixed in ("COLUMNS", "LINES"):  # Textual believes them, and then sees no change of size
        os.environ.pop(fixed, None)
    screen = Screen(subscription, Top(interval_s=interval_s, sort=sort, words=words), colour=colour)
    screen.run()
    if screen.refused is not None:
        raise screen.refused


class Picture(Widget, can_focus=True):
    """The lines; only those that are not what they were are written."""

    def __init__(self, top: Top, *, colour: bool) -> None:
        super().__init__()
        self._top = top
        self._styles = _COLOURED if colour else _COLOURLESS
        self._ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
        self._lines: list[Line] = []

    def redraw(self) -> None:
        before = self._lines
        self._lines = draw(self._top, self.size.width, self.size.height, ascii_only=self._ascii_only)
        changed = [y for y, line in enumerate(self._lines) if y >= len(before) or before[y] != line]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        if y >= len(self._lines):
            return Strip.blank(self.size.width)
        segments = [Segment(text, self._styles[look]) for text, look in self._lines[y]]
        return Strip(segments).adjust_cell_length(self.size.width)

    def on_resize(self) -> None:
        self._lines = []
        self.redraw()


class Screen(App[None]):
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; overflow: hidden; }
    Picture { width: 100%; height: 100%; background: ansi_default; color: ansi_default; }
    """

    def __init__(self, subscription: Subscription, top: Top, *, colour: bool) -> None:
        super().__init__(ansi_color=True)
        self.refused: QueryError | None = None
        self._subscription = subscription
        self._top = top
        self._picture = Picture(top, colour=colour)

    def compose(self) -> ComposeResult:
        yield self._picture

    def on_mount(self) -> None:
        self._picture.focus()
        self.run_worker(self._follow())

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(self._subscription.heard()) as heard:
                async for reply in heard:
                    if isinstance(reply, Lost):
                        self._top.lost = reply.reason
                    else:
                        self._top.take(reply)
                    self._picture.redraw()
        except QueryError as error:
            self.refused = error
            self.exit()

    async def on_event(self, event: events.Event) -> None:
        """Keys are ours alone: none of Textual's own bindings may get in between."""
        match event:
            case events.Key():
                self._press(event.key, event.character)
            case events.MouseScrollDown():
                self._move(WHEEL_LINES)
            case events.MouseScrollUp():
                self._move(-WHEEL_LINES)
            case _:
                await super().on_event(event)

    def _press(self, key: str, character: str | None) -> None:
        self._top.press(key, character)
        if self._top.ended:
            self.exit()
            return
        self._subscription.explain(self._top.explaining)
        self._picture.redraw()

    def _move(self, rows: int) -> None:
        self._top.move(rows)
        self._picture.redraw()
