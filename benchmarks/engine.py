"""What the controller's pure part costs: frames in, orders out, on a virtual clock, without a socket.

    python -m benchmarks engine --json [--agents 100]

A crowd (crowd.py) talks with an engine as over the wire, every frame decoded and encoded by a session.  The
times are CPU time of this process in what a controller would do, per event of its kind; what the crowd itself
costs is left out.  ``--profile`` prints where it goes (the profiler makes everything slower).
"""

import cProfile
import pstats
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from benchmarks.crowd import TICK_S, CrowdHost
from escra_common.messages import Hello, Message, SetLimits, SetMemory, Snapshot
from escra_common.session import Session, hello
from escra_controller.engine import Engine
from escra_controller.events import (
    AgentJoined,
    AppsConfigured,
    AppSpec,
    Decision,
    Event,
    Secure,
    Secured,
    Ticked,
)
from escra_controller.server import event_of, outgoing

CONTAINERS, EVENTFUL = 100, 10
AGENTS_PER_APP = 10
# Until limits have come to rest, and what is measured after that.
WARM_TICKS, TICKS = 50, 100


def measure(
    quick: bool, say: Callable[[str], None], agents: int = 100, profile: bool = False, huge: bool = False
) -> dict[str, Any]:
    if quick:
        agents = 10
    apps = 1 if huge else max(1, agents // AGENTS_PER_APP)
    talk = Talk(agents, apps)
    talk.join()
    joined = talk.take()
    for _ in range(WARM_TICKS):
        talk.tick()
    talk.take()
    profiler = cProfile.Profile(time.process_time) if profile else None
    talk.profiler = profiler
    for _ in range(TICKS):
        talk.tick()
    row = talk.take()
    if profiler is not None:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)
    talk.engine.check()
    say(f"engine: {row}")
    return {
        "agents": agents,
        "containers": agents * CONTAINERS,
        "apps": apps,
        "join_ms_per_agent": joined["total_us"] / 1000 / agents,
        "core_percent_at_10_hz": round(row["total_us"] / (TICKS * TICK_S * 1e4), 1),
        **row,
    }


class Talk:
    """A crowd and an engine, and the sessions between them.  ``take`` gives the costs since the last time."""

    def __init__(self, agents: int, apps: int) -> None:
        self.engine = Engine(now=0.0, bounds={})
        self.profiler: cProfile.Profile | None = None
        self._now = 0.0
        each = agents // apps * CONTAINERS
        specs = [AppSpec(f"app{n}", 600 * each, 512 * each << 20, cpu_max=8000) for n in range(apps)]
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._tick_max_us = 0.0
        self._mail: deque[tuple[str, bytes]] = deque()
        self._hosts = {
            host.name: host
            for n in range(agents)
            for host in [CrowdHost(n + 1, CONTAINERS, f"app{n * apps // agents}", EVENTFUL)]
        }
        # Both ends of each connection.
        self._ends = {
            name: (Session(host.hello(), 0), Session(hello("controller", "c"), 0))
            for name, host in self._hosts.items()
        }
        self._handle(AppsConfigured(specs))

    def join(self) -> None:
        for name, host in self._hosts.items():
            there, here = self._ends[name]
            there.receive(here.greeting(0), 0)
            frames = there.greeting(0) + b"".join(there.send(each, 0) for each in host.snapshot())
            self._hear(name, frames)
            self._deliver()
        while not all(host.admitted for host in self._hosts.values()):
            self.tick()

    def tick(self) -> None:
        """100 ms in which every agent speaks once, spread over it."""
        step = TICK_S / len(self._hosts)
        for name, host in self._hosts.items():
            self._now += step
            self._counts["changes"] -= host.changes
            rows = host.rows(self._now_usec)
            self._counts["events"] += len(rows)
            self._hear(name, self._ends[name][0].frame(["samples", rows], 0))
            self._deliver()
            self._counts["changes"] += host.changes
        self._handle(Ticked())
        self._deliver()

    def take(self) -> dict[str, Any]:
        spent, counts = self._spent, self._counts
        self._spent, self._counts = defaultdict(float), Counter()
        tick_max_us, self._tick_max_us = self._tick_max_us, 0.0
        return {
            "events": counts["events"],
            "changes": counts["changes"],
            "us_per_event": round(sum(spent.values()) * 1e6 / max(1, counts["events"]), 2),
            "us_by_kind": {
                kind: {"times": counts[kind], "us_each": round(spent[kind] * 1e6 / counts[kind], 1)}
                for kind in sorted(spent)
            },
            "tick_max_ms": round(tick_max_us / 1000, 1),
            "total_us": round(sum(spent.values()) * 1e6),
            "rss_mib": round(psutil.Process().memory_info().rss / 2**20),
        }

    @property
    def _now_usec(self) -> int:
        return 1_000_000 + round(self._now * 1e6)

    def _hear(self, name: str, frames: bytes) -> None:
        with self._costs("decode"):
            messages = self._ends[name][1].receive(frames, 0)
        for event in self._events(name, messages):
            self._handle(event)

    def _events(self, name: str, messages: Iterable[Message]) -> Iterator[Event]:
        for message in messages:
            match message:
                case Hello():
                    pass
                case Snapshot(containers):
                    yield AgentJoined(self._hosts[name].hello(), containers)
                case _:
                    yield event_of(name, message)

    def _handle(self, event: Event) -> None:
        with self._costs(type(event).__name__):
            instructions = self.engine.handle(event, self._now)
        orders, answers = [], []
        for instruction in instructions:
            if isinstance(instruction, Secure):
                answers.append(Secured(instruction.app, instruction.host, instruction.bound))
            elif not isinstance(instruction, Decision):
                orders.append(instruction)
        with self._costs("encode"):
            sent = [(host, self._ends[host][1].send(message, 0)) for host, message in outgoing(orders)]
        self._mail.extend(sent)
        for answer in answers:
            self._handle(answer)

    def _deliver(self) -> None:
        """What is on its way, and what comes of it."""
        while self._mail:
            self._obey(*self._mail.popleft())

    def _obey(self, name: str, frame: bytes) -> None:
        there, host = self._ends[name][0], self._hosts[name]
        for message in there.receive(frame, 0):
            match message:
                case SetLimits():
                    self._hear(name, there.send(host.obey(message), 0))
                case SetMemory():
                    self._hear(name, there.send(host.obey_memory(message), 0))

    @contextmanager
    def _costs(self, kind: str) -> Iterator[None]:
        if self.profiler is not None:
            self.profiler.enable()
        began = time.process_time_ns()
        try:
            yield
        finally:
            spent_us = (time.process_time_ns() - began) / 1e3
            if self.profiler is not None:
                self.profiler.disable()
            self._spent[kind] += spent_us / 1e6
            self._counts[kind] += 1
            if kind == "Ticked":
                self._tick_max_us = max(self._tick_max_us, spent_us)
