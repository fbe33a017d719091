"""`escra doctor`: gather, judge, print.  Needs no running daemon."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from escra_common.errors import EscraError
from escra_common.tls import TlsConfig
from escra_controller.asking import colours
from escra_controller.config import DEFAULT_PATH
from escra_controller.doctor.facts import Answer, Daemon, Docker, Facts, Finding, Severity, Socket
from escra_controller.doctor.judgeservices import judge
from escra_controller.doctor.reaching import ask_socket, reach, read_metrics
from escra_controller.doctor.readhost import followed, read_host
from escra_controller.doctor.readservices import read_daemon, resolve
from escra_controller.doctor.view import lines

AGENT_PATH = DEFAULT_PATH.with_name("agent.toml")
STATUS: dict[Severity, int] = {"ok": 0, "warn": 5, "bad": 1}


@click.command()
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
    default=DEFAULT_PATH,
    show_default=True,
    help="The controller's configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: {check, severity, found, advice}.")
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR and TERM=dumb say the same.")
def doctor(agent: Path, controller: Path, as_json: bool, no_color: bool) -> None:
    """Is this host fit for Escra, and is Escra well on it?  Nothing needs to run, and nothing is changed.

    Looks at what there is: an agent, a controller, or both.  Exit status 0 when all is well, 5 with
    warnings only, 1 when something is bad.
    """
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


def status(findings: Sequence[Finding]) -> int:
    worst = {f.severity for f in findings}
    return STATUS["bad" if "bad" in worst else "warn" if "warn" in worst else "ok"]


def examine(agent: Path, controller: Path) -> Facts:
    host = read_host()
    found = (
        read_daemon("agent", agent, systemd=host.systemd),
        read_daemon("controller", controller, systemd=host.systemd),
    )
    daemons = {daemon.name: daemon for daemon in found if daemon is not None}
    docker: Docker | None = None
    answers: tuple[Answer, ...] = ()
    socket: Socket | None = None
    metrics: str | None = None
    if (one := daemons.get("agent")) is not None and one.config is not None:
        if one.config["docker"]["enabled"]:
            # What only this needs, an HTTP client, is not loaded for a table.
            from escra_controller.doctor.readdocker import read_docker

            docker = read_docker(one.config["docker"]["socket"])
        answers = reached(one)
    if (one := daemons.get("controller")) is not None and one.config is not None and one.running:
        listen = one.config["listen"]
        socket = ask_socket(Path(listen["control"]), listen["group"])
        metrics = read_metrics(listen["metrics"])
    return Facts(host, list(daemons.values()), docker, followed(), answers, socket, metrics, time.time())


def reached(agent: Daemon) -> tuple[Answer, ...]:
    """How each controller that the agent would dial answers."""
    config = agent.config or {}
    addresses: list[str] = config["controller"]
    try:
        tls = resolve(TlsConfig(**config["tls"]), agent.unit) if config["tls"] else None
    except (KeyError, EscraError) as error:
        return tuple(Answer(address, f"not tried: [tls] {error}") for address in addresses)
    return tuple(reach(address, tls) for address in addresses)
