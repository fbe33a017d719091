"""``escra-agent``: run it, check its configuration, or put every original limit back."""

import sys
from pathlib import Path
from typing import NoReturn

import click

from escra_agent.app import Agent
from escra_agent.config import DEFAULT_PATH, AgentConfig, load_config
from escra_agent.hierarchy import Hierarchy
from escra_agent.originals import OriginalsStore, restore_all
from escra_common import __version__, log, service
from escra_common.configfile import show
from escra_common.errors import ConfigError, EscraError

EX_CONFIG = 78

_config_option = click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
)


@click.group(epilog="Exit status: 0 ok, 1 failed, 2 usage, 78 bad configuration.")
@click.version_option(__version__, prog_name="escra-agent")
def main() -> None:
    """The agent of one host: samples its containers' cgroups and keeps their limits."""


@main.command()
@_config_option
def run(path: Path) -> None:
    """Run in the foreground; SIGHUP reads the configuration again."""
    refused: list[BaseException] = []
    try:
        config = load_config(path)
        log.configure("escra-agent", config.log_level)
        # Made inside the running loop: its locks and clocks belong to it.
        service.run(lambda: _run(path, config))
    except* ConfigError as group:
        refused += group.exceptions
    if refused:
        _refuse(refused[0])


async def _run(path: Path, config: AgentConfig) -> None:
    await Agent(path, config).run()


@main.command("check-config")
@_config_option
def check_config(path: Path) -> None:
    """Say whether the configuration can be used, and what it means with all defaults."""
    try:
        config = load_config(path)
    except ConfigError as error:
        _refuse(error)
    click.echo(show(config))


@main.command()
@_config_option
def restore(path: Path) -> None:
    """Put every original limit back.  Stop the agent first, or it will manage them again."""
    try:
        store = OriginalsStore(load_config(path).originals_path)
        for line in store.load():
            click.echo(line, err=True)
        outcomes = restore_all(store, Hierarchy.detect())
    except ConfigError as error:
        _refuse(error)
    except EscraError as error:
        click.echo(f"escra-agent: {error}", err=True)
        sys.exit(1)
    for outcome in outcomes:
        click.echo(f"{outcome.original.name}: {outcome.result}: {outcome.text}")
    if not outcomes:
        click.echo("nothing to restore")
    sys.exit(any(outcome.result == "failed" for outcome in outcomes))


def _refuse(error: BaseException) -> NoReturn:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    click.echo(f"escra-agent: {error}", err=True)
    sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
