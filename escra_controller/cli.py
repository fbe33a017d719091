"""The command people type: ``escra``.  Asks the controller, prints the answer."""

import sys
import time
from typing import Any

import click

from escra_common import __version__
from escra_common.units import parse_bytes, parse_cpu
from escra_controller import views
from escra_controller.asking import Asker, shared, watched
from escra_controller.doctor.command import doctor
from escra_controller.eventcommands import events, older
from escra_controller.recordcommands import record
from escra_controller.replaycommands import replay
from escra_controller.reportcommands import report

DEGRADED = 5

EPILOG = """\b
Examples:
  escra ps shop --watch
  escra explain checkout
  escra events shop --follow
\b
Exit status:
  0 ok, 1 failed, 2 wrong usage, 3 the controller is not running,
  4 no such application, container or host, 5 running but degraded,
  78 (the daemons only) bad configuration
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="escra")
def main() -> None:
    """Container limits that follow the work, under one limit per application."""


main.add_command(events)
main.add_command(report)
main.add_command(record)
main.add_command(replay)


@main.command()
@shared
def status(**options: Any) -> None:
    """Is Escra well?  Exit status 5 when it is not."""
    asker = Asker(**options)
    data = asker.ask("status")
    asker.show(data, views.status(data, asker.paint))
    if data["state"] != "ok":
        raise click.exceptions.Exit(DEGRADED)


@main.command()
@watched
@shared
def apps(watch: float | None, **options: Any) -> None:
    """Applications: use, what their containers hold, and the limit of it all."""
    Asker(**options).show_list(views.apps, watch, "apps")


@main.command()
@click.argument("app", required=False)
@watched
@shared
def ps(app: str | None, watch: float | None, **options: Any) -> None:
    """Containers: use, limits, and the share of periods in which they were throttled (THR)."""
    arguments = {} if app is None else {"app": app}
    Asker(**options).show_list(views.ps, watch, "ps", **arguments)


@main.command()
@watched
@shared
def agents(watch: float | None, **options: Any) -> None:
    """Hosts: when last heard, late ticks, limits repaired after somebody else wrote them (DRIFT)."""
    Asker(**options).show_list(views.agents, watch, "agents")


@main.command()
@click.argument("container")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="Decisions.")
@shared
def explain(container: str, limit: int, **options: Any) -> None:
    """Why does CONTAINER (a name, or the start of an id) have the limit it has?"""
    asker = Asker(**options)
    data = asker.ask("explain", container=container, limit=limit)
    row, latest = data["container"], data["decisions"]
    data["decisions"] = older(asker, {"app": row["app"], "container": row["name"]}, latest, limit) + latest
    asker.show(data, views.explain(data, time.time(), asker.paint))


@main.command("set")
@click.argument("app")
@click.option("--cpu", metavar="CORES", help="Such as 4, 1.5 or 1500m.")
@click.option("--memory", metavar="SIZE", help="Such as 2GiB or 512MiB.")
@shared
def set_(app: str, cpu: str | None, memory: str | None, **options: Any) -> None:
    """Change the limit of an application, until the controller is told to reload its configuration."""
    arguments: dict[str, Any] = {"app": app}
    try:
        if cpu is not None:
            arguments["cpu_milli"] = parse_cpu(cpu)
        if memory is not None:
            arguments["memory_bytes"] = parse_bytes(memory)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if len(arguments) == 1:
        raise click.UsageError("nothing to set; give --cpu, --memory or both")
    asker = Asker(**options)
    data = asker.ask("set", **arguments)
    asker.show(data, views.apps([data], asker.width, asker.paint))


@main.command()
@click.argument("host")
@shared
def forget(host: str, **options: Any) -> None:
    """Say that HOST is gone for good: what it held is free for others.

    A host that is away stays counted at what it held, for nobody can look.  If it does hold limits still,
    applications can use more than their limit once others have been given its part.
    """
    asker = Asker(**options)
    data = asker.ask("forget", host=host)
    asker.show(data, [f"{host} is forgotten"])


@main.command()
@click.option(
    "--seconds",
    type=click.FloatRange(4, 25),
    default=20.0,
    show_default=True,
    metavar="S",
    help="Length of each of the two phases.",
)
@click.option("--simulated", is_flag=True, help="On the simulated host, also where real cgroups can be had.")
def demo(seconds: float, simulated: bool) -> None:
    """Three services whose load moves: fixed limits, then Escra, on this machine's own cgroups."""
    from escra_controller.demo.show import play  # what only the demo needs is not loaded for a table

    sys.exit(play(seconds, simulated=simulated))


main.add_command(doctor)


if __name__ == "__main__":
    main()
