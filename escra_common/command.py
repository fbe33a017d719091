"""What the commands of both daemons share: their configuration option, and how a bad one ends them."""

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from escra_common import log, service
from escra_common.configfile import show
from escra_common.errors import ConfigError

EX_CONFIG = 78  # sysexits.h; RestartPreventExitStatus= of the units


def config_option(default: Path) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--config FILE``, handed to the command as ``path``."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(
        "--config", "path", type=kind, default=default, show_default=True, help="The daemon's configuration."
    )


@contextmanager
def refusing(program: str) -> Iterator[None]:
    """A ConfigError in the block ends the program with its message and status 78."""
    refused: list[Exception] = []
    try:
        yield
    except* ConfigError as group:
        refused += _leaves(group)
    if refused:
        click.echo(f"{program}: {refused[0]}", err=True)
        sys.exit(EX_CONFIG)


def run(program: str, log_level: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a daemon in the foreground; ``main`` is called inside the running loop."""
    log.configure(program, log_level)
    service.run(main)


def echo_config(config: msgspec.Struct) -> None:
    """What a configuration means with all defaults, as JSON."""
    click.echo(show(config))


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
