"""Gathers what `escra doctor` judges, and says what its exit status is."""

import time
from collections.abc import Sequence
from pathlib import Path

from escra_common.errors import EscraError
from escra_common.tls import TlsConfig
from escra_controller.doctor.facts import Answer, Daemon, Docker, Facts, Finding, Severity, Socket
from escra_controller.doctor.reaching import ask_socket, reach, read_metrics
from escra_controller.doctor.readhost import followed, read_host
from escra_controller.doctor.readservices import read_daemon, resolve

STATUS: dict[Severity, int] = {"ok": 0, "warn": 5, "bad": 1}


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
