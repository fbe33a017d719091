"""``escra-controller``: run it, or check its configuration."""

import sys
from pathlib import Path
from typing import NoReturn

import click

from escra_common import __version__, log, service
from escra_common.configfile import show
from escra_common.errors import ConfigError
from escra_controller.app import Controller
from escra_controller.config import DEFAULT_PATH, load_config
from escra_controller.control import ControlError

EX_CONFIG = 78

_config_option = click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
)


@click.group(epilog="Exit status: 0 ok, 1 failed, 2 usage, 78 bad configuration.")
@click.version_option(__version__, prog_name="escra-controller")
def main() -> None:
    """The controller: one ledger per application, one limit over all its containers and hosts."""


@main.command()
@_config_option
def run(path: Path) -> None:
    """Run in the foreground; SIGHUP reads the configuration again."""
    refused: list[BaseException] = []
    try:
        config = load_config(path)
        log.configure("escra-controller", config.log_level)
        service.run(lambda: Controller(path, config).run())
    except* (ConfigError, ControlError) as group:
        refused += group.exceptions
    if refused:
        _refuse(refused[0])


@main.command("check-config")
@_config_option
def check_config(path: Path) -> None:
    """Say whether the configuration can be used, and what it means with all defaults."""
    try:
        config = load_config(path)
    except ConfigError as error:
        _refuse(error)
    click.echo(show(config))


def _refuse(error: BaseException) -> NoReturn:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    click.echo(f"escra-controller: {error}", err=True)
    sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
