"""``escra-controller``: run it, check its configuration, issue certificates."""

from pathlib import Path

import click

from escra_common import __version__, command
from escra_controller.app import Controller
from escra_controller.config import DEFAULT_PATH, load_config
from escra_controller.pkicommands import pki

PROGRAM = "escra-controller"


@click.group(epilog=command.EPILOG)
@click.version_option(__version__, prog_name=PROGRAM)
def main() -> None:
    """The controller: one ledger per application, one limit over all its containers and hosts."""


@main.command()
@command.config_option(DEFAULT_PATH)
def run(path: Path) -> None:
    """Run in the foreground; SIGHUP reads the configuration again."""
    with command.refusing(PROGRAM):
        config = load_config(path)
        command.run(PROGRAM, config.log_level, lambda: Controller(path, config).run())


@main.command("check-config")
@command.config_option(DEFAULT_PATH)
def check_config(path: Path) -> None:
    """Say whether the configuration can be used, and what it means with all defaults."""
    with command.refusing(PROGRAM):
        command.echo_config(load_config(path))


main.add_command(pki)

if __name__ == "__main__":
    main()
