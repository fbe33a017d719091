"""What every question on the command line shares: where to ask, how to print, how to repeat."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from escra_controller.client import DEFAULT_SOCKET, Address, QueryError, query
from escra_controller.render import Paint, Tone, plain

WATCH_S = 2.0

_COLOURS: dict[Tone, str] = {"good": "green", "warn": "yellow", "bad": "red", "dim": "bright_black"}
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Asker:
    """What the shared options say: where to ask, and how to print."""

    def __init__(self, socket: Address, timeout: float, as_json: bool, no_color: bool) -> None:
        self._socket = socket
        self._timeout = timeout
        self._as_json = as_json
        self.colour, self.paint = colours(no_color)
        # Names are cut to fit a terminal only: what reads a pipe wants all of them.
        self.width = _terminal_columns() if sys.stdout.isatty() else None

    def ask(self, op: str, **arguments: Any) -> Any:
        try:
            return query(self._socket, {"op": op, **arguments}, self._timeout)
        except QueryError as error:
            click.echo(f"Error: {error}", err=True)
            raise click.exceptions.Exit(error.code) from error

    def show(self, data: Any, lines: list[str], *, compact: bool = False) -> None:
        if self._as_json:
            lines = [_json(data, None if compact else 2)]
        click.echo("\n".join(lines), color=self.colour)

    def show_lines(self, rows: list[Any], lines: list[str]) -> None:
        """A list that goes on: as JSON, every row is a line of its own."""
        if self._as_json:
            lines = [_json(row) for row in rows]
        if lines:
            click.echo("\n".join(lines), color=self.colour)

    def show_list(
        self, view: Callable[..., list[str]], watch: float | None, op: str, **arguments: Any
    ) -> Any:
        """Show a list, again and again when it is watched: in place on a terminal, else appended."""
        redraw = watch is not None and sys.stdout.isatty() and not self._as_json
        while True:
            data = self.ask(op, **arguments)
            if redraw:
                click.echo("\x1b[H\x1b[2J", nl=False, color=True)
            self.show(data, view(data, self.width, self.paint), compact=watch is not None)
            if watch is None:
                return data
            time.sleep(watch)


def _json(data: Any, indent: int | None = None) -> str:
    import json  # a table is not JSON

    return json.dumps(data, indent=indent)


def _terminal_columns() -> int:
    import shutil  # nor has a pipe a width

    return shutil.get_terminal_size().columns


def colours(no_color: bool) -> tuple[bool, Paint]:
    """Whether to use them, and what paints."""
    wanted = not no_color and _wants_colour()
    return wanted, _paint if wanted else plain


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _paint(text: str, tone: Tone) -> str:
    return click.style(text, fg=_COLOURS[tone])


def shared(command: _Command) -> _Command:
    """The options every question has."""
    for option in (
        click.option("--no-color", is_flag=True, help="No colours; NO_COLOR and TERM=dumb say the same."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, with units in the keys."),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1),
            default=2.0,
            show_default=True,
            metavar="S",
            help="How many seconds to wait for an answer.",
        ),
        click.option(
            "--socket",
            type=click.Path(readable=False),  # who may open it, the kernel says
            envvar="ESCRA_SOCKET",
            default=DEFAULT_SOCKET,
            show_default=True,
            show_envvar=True,
            help="The controller's control socket.",
        ),
    ):
        command = option(command)
    return command


watched = click.option(
    "-w",
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=WATCH_S,
    metavar="[SECONDS]",
    help=f"Repeat every SECONDS ({WATCH_S:g}); write it after the other arguments.",
)
