"""``escra-agent``: run it, check its configuration, put original limits or the OOM killer back."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from escra_agent.app import Agent
from escra_agent.config import DEFAULT_PATH, AgentConfig, load_config
from escra_agent.hierarchy import Hierarchy
from escra_agent.originals import OriginalsStore, complete_all, disarm_all, restore_all
from escra_agent.parts import Parts
from escra_agent.unitfiles import UnitFiles
from escra_agent.unitfollower import remove_all
from escra_common import __version__, command
from escra_common.errors import EscraError
from escra_common.helptext import DAEMON_EXIT_STATUS, SETTINGS, examples
from escra_common.lock import Lock

PROGRAM = "escra-agent"


@click.group(
    epilog=examples("escra-agent check-config", "systemctl reload escra-agent", more=DAEMON_EXIT_STATUS),
    context_settings=SETTINGS,
)
@click.version_option(__version__, prog_name=PROGRAM)
def main() -> None:
    """The agent of one host: samples its containers' cgroups and keeps their limits."""


@main.command(epilog=examples("systemctl start escra-agent", "escra-agent run --config try.toml"))
@command.config_option(DEFAULT_PATH)
def run(path: Path) -> None:
    """Run in the foreground; SIGHUP reads the configuration again.

    The unit escra-agent.service does this.  One agent runs on a host; a second one is refused.
    """
    with command.refusing(PROGRAM):
        config = load_config(path)
        _be_the_only_one(config)
        command.run(PROGRAM, config.log_level, lambda: Agent(path, config).run())


@main.command(
    "check-config",
    epilog=examples("escra-agent check-config", "escra-agent check-config --config new.toml"),
)
@command.config_option(DEFAULT_PATH)
def check_config(path: Path) -> None:
    """Say whether the configuration can be used.

    Prints what it means with all defaults, as JSON; or what is wrong with it, and ends with status 78.
    """
    with command.refusing(PROGRAM):
        command.echo_config(load_config(path))


@main.command(epilog=examples("systemctl stop escra-agent", "escra-agent restore", "systemctl daemon-reload"))
@command.config_option(DEFAULT_PATH)
def restore(path: Path) -> None:
    """Put every original limit back; the agent must be stopped.

    Originals are the limits that containers had before the agent first wrote one.  The last of these
    examples makes systemd forget the limits it was told.
    """
    with _known(path, alone=True) as (store, hierarchy):
        outcomes = restore_all(store, hierarchy)
        units = remove_all(UnitFiles())
    for outcome in outcomes:
        click.echo(f"{outcome.original.name}: {outcome.result}: {outcome.text}")
    if units:
        click.echo(f"{units} unit files removed; `systemctl daemon-reload` makes systemd forget them, too")
    if not outcomes:
        click.echo("nothing to restore")
    sys.exit(any(outcome.result == "failed" for outcome in outcomes))


@main.command(epilog=examples("escra-agent disarm"))
@command.config_option(DEFAULT_PATH)
def disarm(path: Path) -> None:
    """Let nothing wait for an agent that is not there.

    On cgroup v1 the agent keeps the kernel from killing what is out of memory.  This gives the OOM killer
    back its work; and whoever had but what was left of a period has its whole CPU limit, where no agent runs.
    The unit does it after every end of the agent.
    """
    with _known(path) as (store, hierarchy):
        failures = disarm_all(store, hierarchy)
        config = load_config(path)
        if Lock(config.lock_path).try_acquire():
            failures += complete_all(store, hierarchy, Parts(config.parts_path, store.boot_id).found())
    for line in failures:
        click.echo(line, err=True)
    sys.exit(bool(failures))


@contextmanager
def _known(path: Path, *, alone: bool = False) -> Iterator[tuple[OriginalsStore, Hierarchy]]:
    """What an agent with this configuration has recorded; an error in the block ends the program."""
    with command.refusing(PROGRAM):
        config = load_config(path)
    if alone:
        _be_the_only_one(config)
    try:
        store = OriginalsStore(config.originals_path)
        for line in store.load():
            click.echo(line, err=True)
        yield store, Hierarchy.detect()
    except EscraError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        sys.exit(1)


def _be_the_only_one(config: AgentConfig) -> None:
    """Until this program ends; or status 1, after which systemd tries again: the other may have ended."""
    lock = Lock(config.lock_path)
    try:
        if lock.try_acquire():
            # Kept by the open file, for as long as the process lives.
            return
    except EscraError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        sys.exit(1)
    holder = lock.holder()
    pid = f"process {holder}" if holder else "another process"
    click.echo(
        f"{PROGRAM}: {pid} holds {lock.path}: an agent runs on this host already, and two would undo each "
        "other's limits; stop it first (`systemctl stop escra-agent`, or end that process)",
        err=True,
    )
    sys.exit(1)


if __name__ == "__main__":
    main()
