"""The command ``escra top``.  What draws on a terminal is loaded only when there is one."""

import os
import sys
from typing import Any

import click

from escra_common.helptext import examples
from escra_controller.asking import Asker, shared
from escra_controller.client import QueryError

SORTS = ("cpu", "limit", "throttled", "memory", "oom", "name", "app", "host", "state")


@click.command(epilog=examples("escra top", "escra top --plain -n 10", "escra top --json -n 1"))
@click.option(
    "-d",
    "--interval",
    type=click.FloatRange(0.2, 60.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two frames.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Print so many frames, then end.")
@click.option("--plain", is_flag=True, help="Print frames as lines; so does a pipe, --json and -n.")
@click.option(
    "--sort", type=click.Choice(SORTS), default="cpu", show_default=True, help="By what, the most first."
)
@click.option("--filter", "words", default="", metavar="WORDS", help="Only what has them all in a name.")
@shared
def top(interval: float, count: int | None, plain: bool, sort: str, words: str, **options: Any) -> None:
    """Applications, containers and hosts, live on the whole screen.

    The key ? says there what the other keys do.
    """
    import asyncio  # what only this command needs is not loaded for a table

    from escra_controller.top.subscription import Subscription

    asker = Asker(**options)
    subscription = Subscription(options["socket"], interval, options["timeout"])
    try:
        if plain or count is not None or options["as_json"] or not _has_screen():
            from escra_controller.top.plain import print_frames

            asyncio.run(
                print_frames(
                    subscription, asker, count=count, sort=sort, words=words, as_json=options["as_json"]
                )
            )
        else:
            from escra_controller.top.screen import show

            show(subscription, sort=sort, words=words, interval_s=interval, colour=asker.colour)
    except QueryError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(error.code) from error


def _has_screen() -> bool:
    """Whether a full screen can be drawn; says what is missing if only the package is."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        return False
    import importlib.util

    if importlib.util.find_spec("textual") is None:
        click.echo("Plain lines, for a package is missing: pip install 'escra[top]'", err=True)
        return False
    return True
