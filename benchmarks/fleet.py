"""Hosts whose agents only speak, all the time: the real protocol, with containers that do not exist.

    python -m benchmarks.fleet PORT HOSTS CONTAINERS

has so many hosts with so many containers each, one in ten of them busy, until it is ended; it prints a line
when all have joined.
"""

import contextlib
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from escra_common.messages import (
    Ack,
    Applied,
    Container,
    ContainerMemory,
    CpuLimit,
    MemoryAck,
    MemoryApplied,
    MemoryLevel,
    MemoryLevels,
    MemoryLimit,
    Message,
    Sample,
    Samples,
    SetLimits,
    SetMemory,
    Snapshot,
)
from escra_common.session import Session, hello

BEAT_S = 0.1
PERIOD_USEC = 100_000
MEMORY_BEATS = 5
_MANY = 200


@dataclass
class Work:
    """What one container does; may be changed while it runs."""

    name: str
    app: str = "bench"
    cores: float = 0.1
    memory_bytes: int = 32 << 20
    throttled: bool = False
    oom_kills: int = 0


class _Contained:
    def __init__(self, key: int, work: Work) -> None:
        self.key, self.work = key, work
        self.limit = CpuLimit(PERIOD_USEC, PERIOD_USEC)
        self.memory = MemoryLimit(max(64 << 20, 2 * work.memory_bytes))
        self.rev = self.writes = self.periods = self.throttled = 0
        self.usage_usec = 0.0

    def introduction(self) -> Container:
        memory = ContainerMemory(self.memory, self.memory, needed_bytes=self.work.memory_bytes)
        name, app = self.work.name, self.work.app
        path = f"/system.slice/{name}"
        return Container(
            self.key, f"{self.key:064x}", name, app, path, "auto", self.limit, self.limit, memory=memory
        )

    def sample(self, now: float) -> Sample:
        self.periods += 1
        self.throttled += self.work.throttled
        self.usage_usec += self.work.cores * BEAT_S * 1e6
        return Sample(
            self.key,
            int(now * 1e6),
            int(self.usage_usec),
            self.periods,
            self.throttled,
            0,
            self.writes,
            self.rev,
        )

    def level(self) -> MemoryLevel:
        used = self.work.memory_bytes
        return MemoryLevel(self.key, used, self.memory.max_bytes, 0, self.work.oom_kills, peak_bytes=used)


class FleetHost:
    """One host; raises OSError when there is no controller."""

    def __init__(self, port: int, host: str, works: Sequence[Work], first_key: int = 1) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        greeting = hello("agent", host, boot_id=host, cpus=64, memory_bytes=256 << 30, cgroup_version="v2")
        self._session = Session(greeting, time.monotonic())
        self._containers = {key: _Contained(key, work) for key, work in enumerate(works, first_key)}
        self._beats = 0
        self._socket.sendall(self._session.greeting(time.monotonic()))
        everyone = [contained.introduction() for contained in self._containers.values()]
        for start in range(0, max(1, len(everyone)), _MANY):
            self._send(Snapshot(everyone[start : start + _MANY], last=start + _MANY >= len(everyone)))

    def beat(self) -> None:
        """Carry out what was ordered, and say what was used since the beat before."""
        self._obey()
        now = time.monotonic()
        # Nothing is new of one that does nothing, so it is not spoken of.
        busy = [c for c in self._containers.values() if c.work.cores or c.work.throttled]
        self._say(Samples, [contained.sample(now) for contained in busy])
        if self._beats % MEMORY_BEATS == 0:
            told = self._containers.values() if self._beats == 0 else busy
            self._say(MemoryLevels, [contained.level() for contained in told])
        self._beats += 1

    def close(self) -> None:
        self._socket.close()

    def _say(self, kind: type[Samples] | type[MemoryLevels], items: list[Sample] | list[MemoryLevel]) -> None:
        for start in range(0, len(items), _MANY):
            self._send(kind(items[start : start + _MANY]))  # type: ignore[arg-type]

    def _obey(self) -> None:
        self._socket.setblocking(False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := self._socket.recv(1 << 18):
                data += piece
        self._socket.settimeout(10.0)
        for message in self._session.receive(data, time.monotonic()):
            if isinstance(message, SetLimits):
                self._send(
                    Applied(
                        [self._applied(order.key, order.rev, order.cpu_milli) for order in message.orders]
                    )
                )
            elif isinstance(message, SetMemory):
                self._send(MemoryApplied([self._given(o.key, o.rev, o.max_bytes) for o in message.orders]))

    def _applied(self, key: int, rev: int, milli: int) -> Ack:
        contained = self._containers[key]
        contained.limit, contained.rev = CpuLimit(milli * PERIOD_USEC // 1000, PERIOD_USEC), rev
        contained.writes += 1
        return Ack(key, rev, contained.limit)

    def _given(self, key: int, rev: int, max_bytes: int) -> MemoryAck:
        contained = self._containers[key]
        contained.memory = MemoryLimit(max_bytes)
        return MemoryAck(key, rev, contained.memory, contained.work.memory_bytes)

    def _send(self, message: Message) -> None:
        self._socket.sendall(self._session.send(message, time.monotonic()))


class Fleet:
    """Hosts that beat together, in a thread, until ``close``."""

    def __init__(self, port: int, hosts: dict[str, Sequence[Work]]) -> None:
        self._hosts = [FleetHost(port, host, works) for host, works in hosts.items()]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        with contextlib.suppress(OSError):  # the controller has gone
            while not self._stopped.wait(max(0.0, due - time.monotonic())):
                due = max(due + BEAT_S, time.monotonic())
                for host in self._hosts:
                    host.beat()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        for host in self._hosts:
            host.close()


@contextlib.contextmanager
def running_fleet(port: int, hosts: dict[str, Sequence[Work]]) -> Iterator[Fleet]:
    fleet = Fleet(port, hosts)
    try:
        yield fleet
    finally:
        fleet.close()


def busy_hosts(hosts: int, containers: int) -> dict[str, list[Work]]:
    """One in ten works all the time, the others do nothing; no two are alike."""
    return {
        f"host-{h + 1}": [
            Work(
                f"web-{h + 1}-{c + 1}",
                cores=0.05 + 0.04 * (1 + math.sin(h + c)) if c % 10 == 0 else 0.0,
                memory_bytes=(8 + c % 24) << 20,
            )
            for c in range(containers)
        ]
        for h in range(hosts)
    }


def main(port: str, hosts: str, containers: str) -> None:
    with running_fleet(int(port), dict(busy_hosts(int(hosts), int(containers)))):
        print("joined", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:4])
