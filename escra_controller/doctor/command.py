"""`escra doctor`: gather, judge, print.  Needs no running daemon."""

import json
import sys
from pathlib import Path

import click

from escra_common.helptext import examples
from escra_controller.asking import colours

AGENT_PATH = Path("/etc/escra/agent.toml")
CONTROLLER_PATH = Path("/etc/escra/controller.toml")


@click.command(epilog=examples("escra doctor", "escra doctor --json"))
@click.option(
    "--agent",
    type=click.Path(path_type=Path),
    default=AGENT_PATH,
    show_default=True,
    help="The agent's configuration.",
)
@click.option(
    "--controller",
    type=click.Path(path_type=Path),
    default=CONTROLLER_PATH,
    show_default=True,
    help="The controller's configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: {check, severity, found, advice}.")
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR and TERM=dumb say the same.")
def doctor(agent: Path, controller: Path, as_json: bool, no_color: bool) -> None:
    """Is this host fit for Escra, and is Escra well on it?

    Nothing needs to run, and nothing is changed.  Looks at what there is: an agent, a controller, or both.
    Exit status 0 when all is well, 5 with warnings only, 1 when something is bad.
    """
    # What only this needs is not loaded for a table, nor for the TAB key.
    from escra_controller.doctor.examination import examine, status
    from escra_controller.doctor.judgeservices import judge
    from escra_controller.doctor.view import lines

    findings = judge(examine(agent, controller))
    if as_json:
        rows = [
            {"check": f.check, "severity": f.severity, "found": f.found, "advice": f.advice} for f in findings
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        colour, paint = colours(no_color)
        click.echo("\n".join(lines(findings, paint)), color=colour)
    sys.exit(status(findings))
