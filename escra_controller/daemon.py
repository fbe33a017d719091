"""``escra-controller``: run it, check its configuration, issue certificates."""

from pathlib import Path

import click

from escra_common import __version__, command
from escra_common.helptext import DAEMON_EXIT_STATUS, SETTINGS, examples
from escra_controller.app import Controller
from escra_controller.client import QueryError, query
from escra_controller.config import DEFAULT_PATH, load_config
from escra_controller.pkicommands import pki

PROGRAM = "escra-controller"


@click.group(
    epilog=examples(
        "escra-controller check-config", "escra-controller pki issue host-1", more=DAEMON_EXIT_STATUS
    ),
    context_settings=SETTINGS,
)
@click.version_option(__version__, prog_name=PROGRAM)
def main() -> None:
    """The controller: one limit per application, over all its containers and hosts."""


@main.command(epilog=examples("systemctl start escra-controller", "escra-controller run --config try.toml"))
@command.config_option(DEFAULT_PATH)
def run(path: Path) -> None:
    """Run in the foreground; SIGHUP reads the configuration again.

    The unit escra-controller.service does this.  One host runs it for all; others run the agent alone.
    """
    with command.refusing(PROGRAM):
        config = load_config(path)
        command.run(PROGRAM, config.log_level, lambda: Controller(path, config).run())


@main.command(
    "check-config",
    epilog=examples("escra-controller check-config", "escra-controller check-config --config new.toml"),
)
@command.config_option(DEFAULT_PATH)
def check_config(path: Path) -> None:
    """Say whether the configuration can be used.

    Prints what it means with all defaults, as JSON; or what is wrong with it, and ends with status 78.
    """
    with command.refusing(PROGRAM):
        command.echo_config(load_config(path))


@main.command(epilog=examples("escra-controller promote --host host-1 --host host-2"))
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="It may hold limits; repeat for each.")
@command.config_option(DEFAULT_PATH)
def promote(hosts: tuple[str, ...], path: Path) -> None:
    """Let the standby that runs here lead from now on.

    Agents that list it come over as soon as they have no better leader.  Until every host that this
    standby has met, that the last leader counted by the word of those that come, or that is named with
    --host, has come or is forgotten (escra forget), nothing grows beyond what those that came have
    brought: so the limits of an application never sum to more.
    """
    with command.refusing(PROGRAM):
        config = load_config(path)
    try:
        data = query(Path(config.listen.control), {"op": "promote", "hosts": ",".join(hosts)})
    except QueryError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        raise click.exceptions.Exit(error.code) from error
    names = ", ".join(data["hosts"]) or "none"
    click.echo(f"It leads, with epoch {data['epoch']}.  It waits for these hosts: {names}")


main.add_command(pki)


if __name__ == "__main__":
    main()
