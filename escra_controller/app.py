"""The controller, put together: agents, control socket, clock and signals around one engine."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from escra_common import __version__
from escra_common.errors import ConfigError, EscraError
from escra_common.renewal import Renewal
from escra_common.service import Watchdog, on_signals, ready, status
from escra_common.ticker import Ticker
from escra_common.tls import Credentials
from escra_common.units import cores
from escra_controller import client
from escra_controller.config import ControllerConfig, load_config
from escra_controller.control import control_socket, serve
from escra_controller.engine import Engine
from escra_controller.events import AppsConfigured, Decision, Event, Instruction, Ticked
from escra_controller.queries import Desk, NoSuchThing
from escra_controller.reception import Reception, listening_sockets
from escra_controller.server import AgentServer

TICK_S = 0.1

log = structlog.get_logger()


class Controller:
    def __init__(self, path: Path, config: ControllerConfig) -> None:
        self._path = path
        self._config = config
        now = time.monotonic()
        self._engine = Engine(config.policy, now, config.grace_s, config.memory)
        self._server = AgentServer(socket.gethostname(), self._handle)
        self._credentials = Credentials(config.tls, server=True) if config.tls else None
        self._renewal = Renewal(self._credentials, self._server.certificates)
        self._desk = Desk(self._engine, now, self._renewal.problems)
        self._watchdog = Watchdog()
        self._handle(AppsConfigured(config.specs()))

    async def run(self) -> None:
        """Until a signal ends it; READY is said once agents and people can connect."""
        listen = self._config.listen
        with control_socket(Path(listen.control), listen.group) as control:
            try:
                listeners = listening_sockets(listen.agents.host, listen.agents.port)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                why = "another program listens there" if taken else error.strerror
                raise ConfigError(f"cannot listen on {listen.agents}: {why}") from error
            reception = Reception(listeners, self._server.attend, self._credentials)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(reception.run())
                tasks.create_task(self._renewal.run())
                tasks.create_task(on_signals(self._reload))
                tasks.create_task(serve(control, self._answer))
                tasks.create_task(self._tick())
                log.info(
                    "controller started",
                    version=__version__,
                    agents=listen.agents,
                    apps=len(self._config.apps),
                )
                ready()

    async def _tick(self) -> None:
        ticker = Ticker(TICK_S)
        while True:
            now = await ticker.next()
            self._handle(Ticked())
            self._watchdog.ping(now)
            if ticker.count % 10 == 0:
                status(self._summary())

    def _handle(self, event: Event) -> None:
        self._follow(self._engine.handle(event, time.monotonic()))

    def _follow(self, instructions: Iterable[Instruction]) -> None:
        decisions, orders = [], []
        for instruction in instructions:
            if isinstance(instruction, Decision):
                decisions.append(instruction)
            else:
                orders.append(instruction)
        self._server.dispatch(orders)
        if decisions:
            # In the loop's next round: what is written to a socket leaves at the end of this one, and
            # whoever waits for an order does not wait for the journal.
            asyncio.get_running_loop().call_soon(_log_decisions, decisions)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            data, instructions = self._desk.answer(request, time.monotonic(), time.time())
        except NoSuchThing as error:
            return {"ok": False, "error": str(error), "code": client.NO_SUCH_THING}
        except (EscraError, msgspec.ValidationError) as error:
            return {"ok": False, "error": str(error), "code": client.FAILED}
        self._follow(instructions)
        return {"ok": True, "data": data}

    def _reload(self) -> None:
        """A bad file changes nothing."""
        self._renewal.renew()
        try:
            config = load_config(self._path)
            self._handle(AppsConfigured(config.specs()))
        except EscraError as error:
            log.error(
                "configuration refused, the running one stays", kind="config_refused", reason=str(error)
            )
            return
        fixed = [
            name
            for name in ("listen", "tls", "policy", "memory", "grace_s", "log_level")
            if getattr(config, name) != getattr(self._config, name)
        ]
        self._config = config
        log.info("configuration reloaded", kind="config_reloaded", apps=len(config.apps))
        if fixed:
            log.warning("these sections change at the next restart", reason=", ".join(fixed))

    def _summary(self) -> str:
        engine = self._engine
        connected = sum(host.connected for host in engine.hosts.values())
        free = sum(app.ledger.free for app in engine.apps.values())
        return (
            f"applications: {len(engine.apps)}, agents: {connected} of {len(engine.hosts)}, "
            f"containers: {len(engine.members)}, free: {cores(free):g} cores"
        )


def _log_decisions(decisions: Iterable[Decision]) -> None:
    for decision in decisions:
        _log_decision(decision)


def _log_decision(decision: Decision) -> None:
    kind = _KINDS.get(decision.rule, "limit_changed")
    amount: Callable[[int], float] = cores if decision.resource == "cpu" else int
    emit = log.info if kind == "limit_changed" else log.warning
    emit(
        "limit changed" if kind == "limit_changed" else decision.cause,
        kind=kind,
        app=decision.app,
        container=decision.container,
        host=decision.host,
        old=None if decision.before is None else amount(decision.before),
        new=None if decision.after is None else amount(decision.after),
        unit="cores" if decision.resource == "cpu" else "bytes",
        reason=decision.rule,
        cause=decision.cause,
    )


# The rules that are trouble rather than control.
_KINDS = {"refused": "write_failed", "denied": "memory_denied", "oom-kill": "oom_killed"}
