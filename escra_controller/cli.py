"""The command people type: ``escra``.  Asks the controller, prints the answer."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from escra_common import __version__
from escra_common.units import parse_bytes, parse_cpu
from escra_controller import views
from escra_controller.client import DEFAULT_SOCKET, QueryError, query
from escra_controller.render import Paint, Tone, plain

DEGRADED = 5
WATCH_S = 2.0
FOLLOW_S = 0.3

EPILOG = """\b
Examples:
  escra ps shop --watch
  escra explain checkout
  escra events shop --follow
\b
Exit status:
  0 ok, 1 failed, 2 wrong usage, 3 the controller is not running,
  4 no such application, container or host, 5 running but degraded,
  78 (the daemons only) bad configuration
"""

_COLOURS: dict[Tone, str] = {"good": "green", "warn": "yellow", "bad": "red", "dim": "bright_black"}
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="escra")
def main() -> None:
    """Container limits that follow the work, under one limit per application."""


class _Asker:
    """What the shared options say: where to ask, and how to print."""

    def __init__(self, socket: Path, timeout: float, as_json: bool, no_color: bool) -> None:
        self._socket = socket
        self._timeout = timeout
        self._as_json = as_json
        self._colour = not no_color and _wants_colour()
        self.paint: Paint = _paint if self._colour else plain
        # Names are cut to fit a terminal only: what reads a pipe wants all of them.
        self.width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def ask(self, op: str, **arguments: Any) -> Any:
        try:
            return query(self._socket, {"op": op, **arguments}, self._timeout)
        except QueryError as error:
            click.echo(f"Error: {error}", err=True)
            raise click.exceptions.Exit(error.code) from error

    def show(self, data: Any, lines: list[str], *, compact: bool = False) -> None:
        if self._as_json:
            lines = [json.dumps(data, indent=None if compact else 2)]
        click.echo("\n".join(lines), color=self._colour)

    def show_lines(self, rows: list[Any], lines: list[str]) -> None:
        """A list that goes on: as JSON, every row is a line of its own."""
        if self._as_json:
            lines = [json.dumps(row) for row in rows]
        if lines:
            click.echo("\n".join(lines), color=self._colour)

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


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _paint(text: str, tone: Tone) -> str:
    return click.style(text, fg=_COLOURS[tone])


def _shared(command: _Command) -> _Command:
    """The options every question has."""
    for option in (
        click.option("--no-color", is_flag=True, help="No colours; NO_COLOR and TERM=dumb say the same."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, with units in the keys."),
        click.option(
            "--timeout", type=click.FloatRange(min=0.1), default=2.0, show_default=True, metavar="S"
        ),
        click.option(
            "--socket",
            type=click.Path(path_type=Path, readable=False),  # who may open it, the kernel says
            envvar="ESCRA_SOCKET",
            default=DEFAULT_SOCKET,
            show_default=True,
            show_envvar=True,
            help="The controller's control socket.",
        ),
    ):
        command = option(command)
    return command


_watched = click.option(
    "-w",
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=WATCH_S,
    metavar="[SECONDS]",
    help=f"Repeat every SECONDS ({WATCH_S:g}); write it after the other arguments.",
)


@main.command()
@_shared
def status(**options: Any) -> None:
    """Is Escra well?  Exit status 5 when it is not."""
    asker = _Asker(**options)
    data = asker.ask("status")
    asker.show(data, views.status(data, asker.paint))
    if data["state"] != "ok":
        raise click.exceptions.Exit(DEGRADED)


@main.command()
@_watched
@_shared
def apps(watch: float | None, **options: Any) -> None:
    """Applications: use, what their containers hold, and the limit of it all."""
    _Asker(**options).show_list(views.apps, watch, "apps")


@main.command()
@click.argument("app", required=False)
@_watched
@_shared
def ps(app: str | None, watch: float | None, **options: Any) -> None:
    """Containers: use, limits, and the share of periods in which they were throttled (THR)."""
    arguments = {} if app is None else {"app": app}
    _Asker(**options).show_list(views.ps, watch, "ps", **arguments)


@main.command()
@_watched
@_shared
def agents(watch: float | None, **options: Any) -> None:
    """Hosts: when last heard, late ticks, limits repaired after somebody else wrote them (DRIFT)."""
    _Asker(**options).show_list(views.agents, watch, "agents")


@main.command()
@click.argument("container")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="Decisions.")
@_shared
def explain(container: str, limit: int, **options: Any) -> None:
    """Why does CONTAINER (a name, or the start of an id) have the limit it has?"""
    asker = _Asker(**options)
    data = asker.ask("explain", container=container, limit=limit)
    asker.show(data, views.explain(data, time.time(), asker.paint))


@main.command()
@click.argument("app", required=False)
@click.option("-n", "--limit", type=click.IntRange(1, 2000), default=20, show_default=True, help="Decisions.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@_shared
def events(app: str | None, limit: int, follow: bool, **options: Any) -> None:
    """What was decided lately, about CPU and memory, and why.  With --json one object per line."""
    asker = _Asker(**options)
    arguments = {} if app is None else {"app": app}
    rows = asker.ask("events", limit=limit, **arguments)
    asker.show_lines(rows, views.events(rows))
    while follow:
        time.sleep(FOLLOW_S)
        after = rows[-1]["number"] if rows else 0
        new = asker.ask("events", after=after, limit=2000, **arguments)
        if new:
            asker.show_lines(new, views.events(new, header=False))
            rows = new


@main.command("set")
@click.argument("app")
@click.option("--cpu", metavar="CORES", help="Such as 4, 1.5 or 1500m.")
@click.option("--memory", metavar="SIZE", help="Such as 2GiB or 512MiB.")
@_shared
def set_(app: str, cpu: str | None, memory: str | None, **options: Any) -> None:
    """Change the limit of an application, until the controller is told to reload its configuration."""
    arguments: dict[str, Any] = {"app": app}
    try:
        if cpu is not None:
            arguments["cpu_milli"] = parse_cpu(cpu)
        if memory is not None:
            arguments["memory_bytes"] = parse_bytes(memory)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if len(arguments) == 1:
        raise click.UsageError("nothing to set; give --cpu, --memory or both")
    asker = _Asker(**options)
    data = asker.ask("set", **arguments)
    asker.show(data, views.apps([data], asker.width, asker.paint))


@main.command()
@click.argument("host")
@_shared
def forget(host: str, **options: Any) -> None:
    """Say that HOST is gone for good: what it held is free for others.

    A host that is away stays counted at what it held, for nobody can look.  If it does hold limits still,
    applications can use more than their limit once others have been given its part.
    """
    asker = _Asker(**options)
    data = asker.ask("forget", host=host)
    asker.show(data, [f"{host} is forgotten"])


@main.command()
@click.option(
    "--seconds",
    type=click.FloatRange(4, 25),
    default=20.0,
    show_default=True,
    metavar="S",
    help="Length of each of the two phases.",
)
@click.option("--simulated", is_flag=True, help="On the simulated host, also where real cgroups can be had.")
def demo(seconds: float, simulated: bool) -> None:
    """Three services whose load moves: fixed limits, then Escra, on this machine's own cgroups."""
    from escra_controller.demo.show import play  # what only the demo needs is not loaded for a table

    sys.exit(play(seconds, simulated=simulated))


if __name__ == "__main__":
    main()
