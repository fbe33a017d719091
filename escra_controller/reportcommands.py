"""``escra report``: a page about what limits and use were, and what Escra changed or would have changed."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from escra_common import __version__
from escra_common.errors import EscraError
from escra_common.helptext import examples
from escra_controller.asking import Asker, shared
from escra_controller.completion import names
from escra_controller.instants import Instant

PATIENCE_S = 60.0


@click.command(epilog=examples("escra report", "escra report shop --since 1h -o shop.html --png shop.png"))
@click.argument("app", required=False, shell_complete=names("apps"))
@click.option(
    "--since",
    type=Instant(time.time),
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long ago (90s, 15m, 1h, 2d), or when (2026-11-25T10:00).",
)
@click.option(
    "--until",
    type=Instant(time.time),
    default="now",
    show_default=True,
    metavar="TIME",
    help="And no later than that.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="FILE.html",
    help="Where to write the page; - is standard output.  [default: escra-report.html]",
)
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Its charts as a picture, too, which needs escra[report].",
)
@shared
def report(
    app: str | None, since: float, until: float, output: Path | None, png: Path | None, **options: Any
) -> None:
    """One HTML page: limits and use over time, what was saved and averted, and why.

    Of APP, or of all applications.  For observed containers it says what Escra would have changed.
    With --json the numbers are printed, and no page is written unless -o names one.
    """
    # What only a report needs is not loaded for a table.
    from escra_controller.report.fetch import gather
    from escra_controller.report.page import page
    from escra_controller.report.words import as_json, headlines

    if until <= since:
        raise click.UsageError("--until must be later than --since")
    # A month of a thousand containers takes the store some seconds to add up.
    options["timeout"] = max(options["timeout"], PATIENCE_S)
    asker = Asker(**options)
    apps = gather(asker.ask, app, since, until, time.time())
    written: list[str] = []
    try:
        if png is not None:
            from escra_controller.report.picture import png as drawn

            _write(png, drawn(apps), written)
        if output is not None or not options["as_json"]:
            html = page(apps, time.time(), __version__).encode()
            if output == Path("-"):
                sys.stdout.buffer.write(html)
                return
            _write(output or Path("escra-report.html"), html, written)
    except EscraError as error:
        raise click.ClickException(str(error)) from error
    said = [f"{each.name}: {sentence}" for each in apps for sentence in headlines(each)]
    nothing = (
        ["no history of any container in this time"] if not any(each.containers for each in apps) else []
    )
    asker.show(as_json(apps), [*said, *nothing, *(f"written: {name}" for name in written)])


def _write(path: Path, body: bytes, written: list[str]) -> None:
    try:
        path.write_bytes(body)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
    written.append(str(path))
