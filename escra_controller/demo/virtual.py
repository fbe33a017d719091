"""The demo on the simulated host: the engine of production, on a clock of its own."""

import time
from collections.abc import Callable

from escra_common.messages import CpuLimit
from escra_controller.demo.scene import APP, Frame, Phase, Reading, Scene, Work
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AppsConfigured,
    AppSpec,
    Event,
    ReleaseContainer,
    SetLimit,
    Ticked,
)
from escra_controller.simulated import PERIOD_USEC, SimulatedContainer, SimulatedHost

CPUS = 2
# The agents' samples and the engine's ticks come every 100 ms, half a beat apart.
BEAT_S = 0.05
MEMORY_BYTES = 1 << 30

Show = Callable[[Phase], None]


def run_phase(
    scene: Scene, title: str, seconds: float, show: Show, *, with_escra: bool, pace: float
) -> Phase:
    """One phase; ``pace`` is how much faster than real time it is shown, 0 for no waiting."""
    host = build_host(scene)
    engine = start_engine(scene, host) if with_escra else None
    phase = Phase(title, [frame(host, 0.0)])
    for beat in range(1, round(seconds / BEAT_S) + 1):
        now = beat * BEAT_S
        host.advance(now)
        if engine is not None:
            event: Event = host.samples() if beat % 2 else Ticked()
            exchange(engine, host, event, now)
        phase.frames.append(frame(host, now))
        show(phase)
        if pace:
            time.sleep(BEAT_S / pace)
    offered = sum(each.offered_usec for each in host.containers.values())
    done = sum(each.usage_usec for each in host.containers.values())
    phase.work = Work(offered / 1e6, done / 1e6)
    return phase


def build_host(scene: Scene) -> SimulatedHost:
    """Each service in a container that starts with the fixed share."""
    quota = scene.fixed_milli * PERIOD_USEC // 1000
    return SimulatedHost(
        "simulated",
        CPUS,
        [
            SimulatedContainer(
                key=index + 1,
                name=name,
                app=APP,
                demand=_demand(scene, index),
                limit=CpuLimit(quota, PERIOD_USEC),
                phase_usec=index * 35_000,
            )
            for index, name in enumerate(scene.names)
        ],
    )


def _demand(scene: Scene, index: int) -> Callable[[float], float]:
    return lambda at_s: scene.demand(index, at_s)


def start_engine(scene: Scene, host: SimulatedHost) -> Engine:
    engine = Engine(now=0.0)
    exchange(engine, host, AppsConfigured([AppSpec(APP, cpu=scene.omega_milli, memory=MEMORY_BYTES)]), 0.0)
    exchange(engine, host, AgentJoined(host.hello(), host.snapshot()), 0.0)
    return engine


def exchange(engine: Engine, host: SimulatedHost, event: Event, now: float) -> None:
    """Event to engine, orders to host, acknowledgements to engine, until all is said."""
    waiting: Event | None = event
    while waiting is not None:
        for instruction in engine.handle(waiting, now):
            if isinstance(instruction, SetLimit | ReleaseContainer):
                host.obey(instruction)
        waiting = host.acknowledge()


def frame(host: SimulatedHost, at_s: float) -> Frame:
    return Frame(at_s, {each.name: _reading(each) for each in host.containers.values()})


def _reading(container: SimulatedContainer) -> Reading:
    limit = container.limit
    quota = (limit.quota_usec or 0) + limit.burst_usec
    return Reading(
        limit_milli=quota * 1000 // limit.period_usec,
        usage_usec=container.usage_usec,
        nr_periods=container.nr_periods,
        nr_throttled=container.nr_throttled,
        throttled_usec=container.throttled_usec,
    )
