"""``escra record``: what a running controller is told, into a file."""

import time
from pathlib import Path
from typing import Any

import click

from escra_common.helptext import examples
from escra_controller.asking import Asker, shared
from escra_controller.completion import names

FETCH_S = 0.25


@click.command(epilog=examples("escra record monday.rec --seconds 600", "escra record shop.rec --app shop"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="S",
    help="For how long.",
)
@click.option("--app", default="", shell_complete=names("apps"), help="Only this application.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@shared
def record(file: Path, seconds: float, app: str, force: bool, **options: Any) -> None:
    """Write what the controller is told from now on to FILE, for `escra replay`.

    Ctrl-C ends it earlier.
    The controller does not wait for this: it keeps 8 MiB at most, and ends the recording beyond.
    """
    asker = Asker(**options)
    try:
        with file.open("wb" if force else "xb") as out:
            size = _fetch(asker, app, seconds, out.write)
    except FileExistsError as error:
        raise click.ClickException(f"{file} is there already; --force replaces it") from error
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error
    asker.show({"file": str(file), "bytes": size}, [f"{file}: {size} bytes; look with: escra replay {file}"])


def _fetch(asker: Asker, app: str, seconds: float, write: Any) -> int:
    number, size = asker.ask("record", app=app)["number"], 0
    until, last = time.monotonic() + seconds, False
    while not last:
        try:
            time.sleep(max(0.0, min(FETCH_S, until - time.monotonic())))
        except KeyboardInterrupt:
            last = True
        last = last or time.monotonic() >= until
        size += write(asker.ask("recorded", number=number, last=int(last))["data"])
    return size
