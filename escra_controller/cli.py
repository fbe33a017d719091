"""The command people type: ``escra``.  Asks the controller, prints the answer."""

import sys
import time
from typing import Any

import click

from escra_common import __version__
from escra_common.helptext import SETTINGS, examples
from escra_controller import views
from escra_controller.asking import Asker, shared, watched
from escra_controller.completion import names
from escra_controller.elsewhere import Elsewhere

DEGRADED = 5
ELSEWHERE = {
    "doctor": "escra_controller.doctor.command",
    "events": "escra_controller.eventcommands",
    "record": "escra_controller.recordcommands",
    "replay": "escra_controller.replaycommands",
    "report": "escra_controller.reportcommands",
    "top": "escra_controller.top.command",
}

EXIT_STATUS = """\b
Exit status:
  0 ok, 1 failed, 2 wrong usage, 3 the controller is not running,
  4 no such application, container or host, 5 running but degraded,
  78 (the daemons only) bad configuration
"""


@click.group(
    cls=Elsewhere,
    elsewhere=ELSEWHERE,
    epilog=examples(
        "escra ps shop --watch", "escra explain checkout", "escra events shop --follow", more=EXIT_STATUS
    ),
    context_settings=SETTINGS,
)
@click.version_option(__version__, prog_name="escra")
def main() -> None:
    """Container limits that follow the work, under one limit per application."""


@main.command(epilog=examples("escra status", "escra status --json"))
@shared
def status(**options: Any) -> None:
    """Is Escra well?

    Says what is not: agents that are away, containers that cannot be managed, certificates about to end.
    Exit status 5 when there is anything.
    """
    asker = Asker(**options)
    data = asker.ask("status")
    asker.show(data, views.status(data, asker.paint))
    if data["state"] != "ok":
        raise click.exceptions.Exit(DEGRADED)


@main.command(epilog=examples("escra apps", "escra apps --watch"))
@watched
@shared
def apps(watch: float | None, **options: Any) -> None:
    """Applications: what they use, hold and may hold."""
    Asker(**options).show_list(views.apps, watch, "apps")


@main.command(epilog=examples("escra ps", "escra ps shop --watch 1", "escra ps --json"))
@click.argument("app", required=False, shell_complete=names("apps"))
@watched
@shared
def ps(app: str | None, watch: float | None, **options: Any) -> None:
    """Containers: use, limits, throttling.

    THR is the share of scheduler periods in which a container was cut short.  APP: only those of one
    application.
    """
    arguments = {} if app is None else {"app": app}
    Asker(**options).show_list(views.ps, watch, "ps", **arguments)


@main.command(epilog=examples("escra agents"))
@watched
@shared
def agents(watch: float | None, **options: Any) -> None:
    """Hosts, and whether their agents are well.

    When last heard, ticks that came late, and limits repaired after somebody else wrote them (DRIFT).
    """
    Asker(**options).show_list(views.agents, watch, "agents")


@main.command(epilog=examples("escra explain web", "escra explain 3f9c --limit 50"))
@click.argument("container", shell_complete=names("ps"))
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many decisions."
)
@shared
def explain(container: str, limit: int, **options: Any) -> None:
    """Why does CONTAINER have the limits it has?

    CONTAINER is a name, or the start of an id.  Shows its bounds, and its last decisions with cause, rule and
    numbers.
    """
    from escra_controller.eventcommands import older

    asker = Asker(**options)
    data = asker.ask("explain", container=container, limit=limit)
    row, latest = data["container"], data["decisions"]
    data["decisions"] = older(asker, {"app": row["app"], "container": row["name"]}, latest, limit) + latest
    asker.show(data, views.explain(data, time.time(), asker.paint))


@main.command("set", epilog=examples("escra set shop --cpu 4", "escra set shop --cpu 1500m --memory 2GiB"))
@click.argument("app", shell_complete=names("apps"))
@click.option("--cpu", metavar="CORES", help="Such as 4, 1.5 or 1500m.")
@click.option("--memory", metavar="SIZE", help="Such as 2GiB or 512MiB.")
@shared
def set_(app: str, cpu: str | None, memory: str | None, **options: Any) -> None:
    """Change the limit of APP at once.

    It is kept over restarts, until the controller is told to reload its configuration.
    """
    from escra_common.units import parse_bytes, parse_cpu

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


@main.command(epilog=examples("escra forget host-3"))
@click.argument("host", shell_complete=names("agents", "host"))
@shared
def forget(host: str, **options: Any) -> None:
    """Say that HOST is gone for good: what it held is free for others.

    A host that is away stays counted at what it held, for nobody can look.  If it does hold limits still,
    applications can use more than their limit once others have been given its part.
    """
    asker = Asker(**options)
    data = asker.ask("forget", host=host)
    asker.show(data, [f"{host} is forgotten"])


@main.command(epilog=examples("escra demo", "escra demo --simulated --seconds 5"))
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
    """A load that moves, with fixed limits and with Escra.

    Three services on this machine's own cgroups; where those cannot be written, on a simulated host.
    """
    from escra_controller.demo.show import play  # what only the demo needs is not loaded for a table

    sys.exit(play(seconds, simulated=simulated))


if __name__ == "__main__":
    main()
