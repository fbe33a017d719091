"""``escra events``: the latest decisions from memory, older ones from the store."""

import time
from typing import Any

import click

from escra_common.helptext import examples
from escra_controller import views
from escra_controller.asking import Asker, shared
from escra_controller.completion import names
from escra_controller.instants import Instant

FOLLOW_S = 0.3
PAGE = 2000
# An instant in JSON is rounded; nothing of another run of the controller is that near.
_NEAR_S = 0.01


@click.command(
    epilog=examples(
        "escra events shop --follow", "escra events --since 1h --container web", "escra events --json"
    )
)
@click.argument("app", required=False, shell_complete=names("apps"))
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, PAGE),
    default=None,
    metavar="N",
    help="The latest N decisions.  [default: 20; all with --since]",
)
@click.option(
    "--since",
    type=Instant(time.time),
    metavar="TIME",
    help="From how long ago on (90s, 15m, 1h, 2d), or from when (2026-11-25T10:00).",
)
@click.option("--until", type=Instant(time.time), metavar="TIME", help="And no later than that.")
@click.option(
    "--container",
    metavar="NAME",
    shell_complete=names("ps"),
    help="About this container only, also one that is gone.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@shared
def events(
    app: str | None,
    limit: int | None,
    since: float | None,
    until: float | None,
    container: str | None,
    follow: bool,
    **options: Any,
) -> None:
    """What was decided lately, about CPU and memory, and why.

    Also before a restart of the controller.
    With --json one object per line.
    """
    if follow and until is not None:
        raise click.UsageError("--follow goes on without end; it cannot be used with --until")
    asker = Asker(**options)
    arguments = {} if app is None else {"app": app}
    latest = asker.ask("events", limit=limit or 20, **arguments)
    after = latest[-1]["number"] if latest else 0
    wanted = {"since": since, "until": until, "container": container}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    if chosen:
        _show_past(asker, limit, {**arguments, **chosen})
    else:
        rows = older(asker, arguments, latest, limit or 20) + latest
        asker.show_lines(rows, views.events(rows))
    while follow:
        time.sleep(FOLLOW_S)
        new = asker.ask("events", after=after, limit=PAGE, **arguments)
        if new:
            after = new[-1]["number"]
            new = [row for row in new if container in (None, row["container"])]
            asker.show_lines(new, views.events(new, header=False))


def older(asker: Asker, arguments: dict[str, Any], latest: list[Any], limit: int) -> list[Any]:
    """From the store, when memory has fewer than are wanted: the controller has not been up for long."""
    if len(latest) >= limit:
        return []
    before = {"until": latest[0]["at"] - _NEAR_S} if latest else {}
    rows: list[Any] = asker.ask("audit", limit=limit - len(latest), **arguments, **before)
    return rows


def _show_past(asker: Asker, limit: int | None, chosen: dict[str, Any]) -> None:
    """The latest ``limit``, or all, a page at a time."""
    days = chosen.get("since", 0.0) < time.time() - 86400 / 2
    if limit is not None or "since" not in chosen:
        rows = asker.ask("audit", limit=limit or 20, **chosen)
        asker.show_lines(rows, views.events(rows, days=days))
        return
    after, header = 0, True
    while header or len(rows) == PAGE:
        rows = asker.ask("audit", after=after, limit=PAGE, **chosen)
        asker.show_lines(rows, views.events(rows, header=header, days=days))
        after, header = rows[-1]["number"] if rows else after, False
