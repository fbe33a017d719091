"""The controller, put together: agents, control socket, clock and signals around one engine."""

import asyncio
import contextlib
import errno
import gc
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from escra_common import __version__
from escra_common.errors import ConfigError, EscraError
from escra_common.messages import Hello
from escra_common.renewal import Renewal
from escra_common.service import Watchdog, on_signals, ready, status
from escra_common.ticker import Ticker
from escra_common.tls import Credentials
from escra_common.units import cores
from escra_controller import client
from escra_controller.config import ControllerConfig, load_config
from escra_controller.control import Reply, control_socket, serve
from escra_controller.engine import Engine
from escra_controller.events import (
    AppResized,
    AppsConfigured,
    Decision,
    Event,
    Instruction,
    Secure,
    Secured,
    Ticked,
)
from escra_controller.history import Logbook, history_row
from escra_controller.leadership import LOST_GRACE_S, Leadership
from escra_controller.metrics.exporter import Exporter
from escra_controller.metrics.gathering import gather
from escra_controller.metrics.page import Page, process
from escra_controller.metrics.series import Family, Ticks, controller
from escra_controller.metrics.series import Standing as Condition
from escra_controller.metrics.tally import Tally
from escra_controller.past import OPS as PAST
from escra_controller.past import Past
from escra_controller.queries import Desk, NoSuchThing, Promote, Standing, Watch
from escra_controller.reception import Reception, listening_sockets
from escra_controller.recorder import OPS as RECORDER_OPS
from escra_controller.recorder import Recorders
from escra_controller.server import AgentServer
from escra_controller.shadow import Shadow
from escra_controller.state import Refused
from escra_controller.streaming import Replies
from escra_controller.watching import Pictures

TICK_S = 0.1
HISTORY_TICKS = 100
FREEZE_EVERY = 5_000

log = structlog.get_logger()


class Controller:
    """Knows nobody until it leads: agents are sent away, and people are told so."""

    def __init__(self, path: Path, config: ControllerConfig) -> None:
        self._path = path
        self._config = config
        self._started_at, self._started_wall = time.monotonic(), time.time()
        self._host = host = socket.gethostname()
        self._leadership = Leadership(config.state_path, host, standby=config.standby)
        self._server = AgentServer(host, self._handle, self._met, self._count_hosts)
        self._credentials = Credentials(config.tls, server=True) if config.tls else None
        self._renewal = Renewal(self._credentials, self._server.certificates)
        self._watchdog = Watchdog()
        self._frozen = 0
        self._ticker = Ticker(TICK_S)
        self._tally = Tally()
        self._page = Page(self._gather)
        self._exporter = Exporter(config.listen.metrics, self._page.read)
        self._engine = Engine(config.policy, self._started_at, config.grace_s, config.memory)
        self._shadow = Shadow(self._engine, config.memory, self._started_at)
        self._desk = self._new_desk()
        self._pictures = Pictures(lambda: self._desk)
        self._logbook = Logbook(lambda key: self._shadow.would(key))
        self._past = Past()
        self._recorders = Recorders()

    async def run(self) -> None:
        """Until a signal ends it; READY is said once agents and people can connect."""
        listen = self._config.listen
        if self._leadership.begin() and self._leadership.role == "leader":
            self._lead()
        with self._saving(), self._control_socket() as control:
            try:
                listeners = listening_sockets(listen.agents.host, listen.agents.port)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                why = "another program listens there" if taken else error.strerror
                raise ConfigError(f"cannot listen on {listen.agents}: {why}{self._beside()}") from error
            reception = Reception(listeners, self._server.attend, self._credentials)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(reception.run())
                tasks.create_task(self._renewal.run())
                tasks.create_task(on_signals(self._reload))
                tasks.create_task(serve(control, self._answer))
                tasks.create_task(self._tick())
                tasks.create_task(self._exporter.run())
                if self._leadership.role != "leader":
                    tasks.create_task(self._wait_to_lead())
                log.info(
                    "controller started",
                    version=__version__,
                    agents=listen.agents,
                    apps=len(self._config.apps),
                )
                ready()

    # ---- leading -------------------------------------------------------------------

    async def _wait_to_lead(self) -> None:
        await self._leadership.lead()
        self._lead()

    def _lead(self) -> None:
        """From now on agents are taken; hosts from before are counted at what they may hold."""
        config, now, lost = self._config, time.monotonic(), self._leadership.lost
        grace_s = max(config.grace_s, LOST_GRACE_S) if lost else config.grace_s
        if self._leadership.remembers:
            grace_s = 0.0  # who is not back yet is counted all the same
        self._engine = Engine(config.policy, now, grace_s, config.memory, self._leadership.bounds)
        self._shadow = Shadow(self._engine, config.memory, now)
        self._desk = self._new_desk()
        self._handle(AppsConfigured(config.specs()))
        for app, size in self._leadership.recovered.sizes.items():
            try:
                self._handle(AppResized(app, size.cpu_milli, size.memory_bytes))
            except Refused as error:
                log.warning("the configured limit counts again", app=app, reason=str(error))
        if lost:
            # By then everybody who held something, and who can come, has come.
            asyncio.get_running_loop().call_later(grace_s, self._leadership.store.nothing_is_lost)
        self._server.lead(self._leadership.epoch)
        log.info("leading", kind="leading", reason=f"epoch {self._leadership.epoch}")

    def _met(self, agent: Hello) -> None:
        leadership = self._leadership
        epoch = leadership.epoch
        leadership.met(agent)
        if leadership.epoch != epoch and leadership.role == "leader":
            self._server.lead(leadership.epoch)

    def _count_hosts(self) -> int:
        return self._engine.host_count

    def _new_desk(self) -> Desk:
        return Desk(self._engine, self._started_at, self._standing, self._shadow.would)

    def _standing(self) -> Standing:
        leadership = self._leadership
        problems = leadership.problems() + self._renewal.problems(time.time())
        problems += [self._exporter.problem] * bool(self._exporter.problem)
        return Standing(leadership.role, leadership.epoch, problems, self._ticker.late)

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._leadership.close()

    @contextlib.contextmanager
    def _control_socket(self) -> Iterator[socket.socket]:
        listen = self._config.listen
        with contextlib.ExitStack() as stack:
            try:
                control = stack.enter_context(control_socket(Path(listen.control), listen.group))
            except ConfigError as error:
                raise ConfigError(f"{error}{self._beside()}") from error
            yield control

    def _beside(self) -> str:
        """Why an address may be taken."""
        if self._leadership.role != "waiting":
            return ""
        return f"; a second controller: {self._leadership.leader_beside} leads with {self._config.state_path}"

    # ---- work ----------------------------------------------------------------------

    async def _tick(self) -> None:
        ticker = self._ticker = Ticker(TICK_S)
        while True:
            now = await ticker.next()
            if self._leadership.role == "leader":
                self._handle(Ticked())
                self._sample(ticker.count % HISTORY_TICKS)
                rows = self._logbook.tick(self._engine, time.time(), now)
                self._leadership.store.sample(containers=rows)
            self._watchdog.ping(now)
            self._freeze()
            if ticker.count % 10 == 0:
                status(self._summary())

    def _sample(self, turn: int) -> None:
        """One line of history for the applications whose turn it is: never for all in one tick."""
        apps = list(self._engine.apps.values())[turn::HISTORY_TICKS]
        if apps:
            self._leadership.store.sample([history_row(app, time.time()) for app in apps])

    def _freeze(self) -> None:
        """Containers stay: the collector need not look through all of them to find garbage elsewhere."""
        grown = len(self._engine.members) - self._frozen
        if grown >= FREEZE_EVERY:
            gc.collect()
            gc.freeze()
        if abs(grown) >= FREEZE_EVERY:
            self._frozen = len(self._engine.members)

    def _handle(self, event: Event) -> None:
        began = time.monotonic()
        instructions = self._engine.handle(event, began)
        self._page.decisions.observe(time.monotonic() - began)
        self._follow(instructions)
        # Who waits for an order does not wait for what only would be.
        self._follow(self._shadow.handle(event, began))
        self._logbook.hear(event)
        self._recorders.hear(event, began)

    def _follow(self, instructions: Iterable[Instruction]) -> None:
        decisions, orders, bounds = [], [], []
        for instruction in instructions:
            if isinstance(instruction, Decision):
                decisions.append(instruction)
                self._tally.count(instruction)
            elif isinstance(instruction, Secure):
                bounds.append(instruction)
            else:
                orders.append(instruction)
        self._server.dispatch(orders)
        if bounds:
            self._secure(bounds)
        if decisions:
            self._leadership.store.record(decisions, time.time() - time.monotonic())
            # In the loop's next round: what is written to a socket leaves at the end of this one, and
            # whoever waits for an order does not wait for the journal.
            asyncio.get_running_loop().call_soon(_log_decisions, decisions)

    def _secure(self, bounds: list[Secure]) -> None:
        engine = self._engine

        def done() -> None:
            if engine is self._engine:
                for bound in bounds:
                    self._handle(Secured(bound.app, bound.host, bound.bound))

        self._leadership.store.secure({(b.host, b.app): b.bound for b in bounds}, done)

    def _answer(self, request: dict[str, Any]) -> Reply | Awaitable[Reply] | Replies:
        if request.get("op") in PAST and self._leadership.role == "leader":
            return self._recall(request)
        try:
            if request.get("op") == "watch":
                self._refuse_unless_leading()
                return self._pictures.replies(msgspec.convert(request, Watch))
            data, instructions = self._asked(request)
        except NoSuchThing as error:
            return {"ok": False, "error": str(error), "code": client.NO_SUCH_THING}
        except (EscraError, msgspec.ValidationError) as error:
            return {"ok": False, "error": str(error), "code": client.FAILED}
        self._follow(instructions)
        return {"ok": True, "data": data}

    async def _recall(self, request: dict[str, Any]) -> Reply:
        try:
            return {"ok": True, "data": await self._past.answer(self._leadership.store, request)}
        except (EscraError, msgspec.ValidationError) as error:
            return {"ok": False, "error": str(error), "code": client.FAILED}

    def _asked(self, request: dict[str, Any]) -> tuple[Any, list[Instruction]]:
        leadership = self._leadership
        if request.get("op") == "promote":
            hosts = msgspec.convert(request, Promote).hosts.split(",")
            leadership.promote(host.strip() for host in hosts if host.strip())
            return {"epoch": leadership.epoch, "hosts": sorted(leadership.met_hosts)}, []
        if request.get("op") != "status":
            self._refuse_unless_leading()
        now, wall = time.monotonic(), time.time()
        if request.get("op") in RECORDER_OPS:
            return self._recorders.answer(request, self._engine, self._config.memory, now, wall), []
        answer = self._desk.answer(request, now, wall)
        if request.get("op") == "set":
            size = request["app"], request.get("cpu_milli"), request.get("memory_bytes")
            leadership.store.size(*size)
            self._recorders.hear(AppResized(*size), now)
        return answer

    def _refuse_unless_leading(self) -> None:
        if self._leadership.role != "leader":
            raise Refused("this controller is a standby; ask the one that leads")

    def _reload(self) -> None:
        """A bad file changes nothing."""
        self._renewal.renew()
        try:
            config = load_config(self._path)
            if self._leadership.role == "leader":
                self._handle(AppsConfigured(config.specs()))
                self._leadership.store.forget_sizes()
        except EscraError as error:
            log.error(
                "configuration refused, the running one stays", kind="config_refused", reason=str(error)
            )
            return
        fixed = [
            name
            for name in ("listen", "tls", "policy", "memory", "grace_s", "log_level", "standby", "state_dir")
            if getattr(config, name) != getattr(self._config, name)
        ]
        self._config = config
        log.info("configuration reloaded", kind="config_reloaded", apps=len(config.apps))
        if fixed:
            log.warning("these sections change at the next restart", reason=", ".join(fixed))

    # ---- what others see -----------------------------------------------------------

    def _gather(self) -> Iterator[Iterable[Family]]:
        leadership = self._leadership
        store = leadership.store if leadership.role == "leader" else None
        condition = Condition(
            __version__,
            leadership.role,
            leadership.epoch,
            len(self._desk.problems()),
            store is None or not store.trouble,
            0 if store is None else store.dropped,
            self._renewal.expiries(),
        )
        yield [*controller(condition), *process(self._started_wall)]
        own = Ticks(self._host, self._ticker.count, self._ticker.late)
        yield from gather(self._engine, self._tally, own, time.monotonic(), time.time())

    def _summary(self) -> str:
        engine = self._engine
        if self._leadership.role != "leader":
            return f"{self._leadership.role}: takes no agents"
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
    event = "limit changed" if kind == "limit_changed" else decision.cause
    if decision.observed:
        event = "would change" if kind == "limit_changed" else f"only observed: {event}"
        kind = "limit_observed"
    amount: Callable[[int], float] = cores if decision.resource == "cpu" else int
    emit = log.info if kind in ("limit_changed", "limit_observed") else log.warning
    emit(
        event,
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
