"""The crowd on real sockets: one process that speaks for many hosts.

    python -m benchmarks.dial PORT HOSTS CONTAINERS HOSTS_PER_APP EVENTFUL LEVEL

Every host is a connection of its own, to 127.0.0.1, all on one thread.  Says as JSON on stdout what was said
since it said so before: when every container has its first limit, and then for each line on stdin.  After
``again`` that is when all hosts have hung up, dialled anew at the same moment and joined.  Ends with stdin.
"""

import json
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from benchmarks.crowd import TICK_S, CrowdHost
from escra_common.errors import WireError
from escra_common.messages import Heartbeat, SetLimits, SetMemory, Terms
from escra_common.session import HEARTBEAT_S, Session

REDIAL_S = 1.0


class Line:
    """One host's connection."""

    def __init__(self, port: int, host: CrowdHost) -> None:
        self.host = host
        self.alive = True
        self.died_at = 0.0
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session = Session(host.hello(), time.monotonic())
        self._beat_at = 0.0
        # The controller says its terms to everybody who has joined.
        self.joined = False
        self.bytes_out = self.bytes_in = 0
        self.say(self._session.greeting(0) + b"".join(self._session.send(m, 0) for m in host.snapshot()))

    def fileno(self) -> int:
        return self._socket.fileno()

    def say(self, frame: bytes) -> None:
        self.bytes_out += len(frame)
        self._socket.sendall(frame)

    def tick(self, now: float) -> None:
        frame = self._session.frame(["samples", self.host.rows(int(now * 1e6))], now)
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            frame += self._session.send(Heartbeat(sent_usec=int(now * 1e6)), now)
        self.say(frame)

    def hear(self) -> None:
        data = self._socket.recv(1 << 16)
        self.bytes_in += len(data)
        self.alive = bool(data)
        answer = b""
        for message in self._session.receive(data, 0):
            match message:
                case SetLimits():
                    answer += self._session.send(self.host.obey(message), 0)
                case Terms():
                    self.joined = True
                case SetMemory():
                    answer += self._session.send(self.host.obey_memory(message), 0)
        if answer:
            self.say(answer)

    def close(self) -> None:
        self._socket.close()


class Dialled:
    def __init__(self, port: int, hosts: list[CrowdHost]) -> None:
        self._port = port
        self._hosts = hosts
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._lines: list[Line] = []
        self._hung_up = Counter[str]()
        self._since: dict[str, float] = {"at": time.monotonic()}
        self._joining = True
        self._late = self._lost = 0

    def run(self) -> None:
        """Hosts speak one after the other, evenly spread over each 100 ms."""
        self._dial()
        step, count = TICK_S / len(self._hosts), 0
        start = time.monotonic()
        while True:
            now = time.monotonic()
            while start + count * step <= now:
                line = self._redialled(count % len(self._lines), now)
                self._late += now - (start + count * step) > TICK_S / 2
                self._try(line, partial(line.tick, now))
                count += 1
            for fd, _ in self._epoll.poll(max(0.0, start + count * step - time.monotonic())):
                if fd != sys.stdin.fileno():
                    self._try(self._by_fd[fd], self._by_fd[fd].hear)
                elif not self._obey(sys.stdin.readline().strip()):
                    return
            if self._joining and all(line.joined and line.host.admitted for line in self._lines):
                self._joining = False
                self._report()

    def _obey(self, word: str) -> bool:
        if word == "again":
            self._since = self._totals()
            for line in self._lines:
                self._hung_up.update(bytes_in=line.bytes_in, bytes_out=line.bytes_out)
                line.close()
            self._dial()
            self._joining = True
        elif word:
            self._report()
        return bool(word)

    def _dial(self) -> None:
        self._lines = [Line(self._port, host) for host in self._hosts]
        self._by_fd = {line.fileno(): line for line in self._lines}
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)

    def _redialled(self, number: int, now: float) -> Line:
        """As an agent does whose controller does not take it in time."""
        line = self._lines[number]
        if not line.alive and now >= line.died_at + REDIAL_S:
            self._hung_up.update(bytes_in=line.bytes_in, bytes_out=line.bytes_out)
            line.close()
            line = self._lines[number] = Line(self._port, self._hosts[number])
            self._by_fd[line.fileno()] = line
            self._epoll.register(line.fileno(), select.EPOLLIN)
        return line

    def _try(self, line: Line, act: Callable[[], None]) -> None:
        if not line.alive:
            return
        try:
            act()
        except (OSError, WireError):
            line.alive = False
        if not line.alive:
            self._lost += 1
            line.died_at = time.monotonic()
            self._epoll.unregister(line.fileno())

    def _totals(self) -> dict[str, float]:
        times = os.times()
        return {
            "at": time.monotonic(),
            "events": sum(host.samples for host in self._hosts),
            "changes": sum(host.changes for host in self._hosts),
            "bytes_out": self._hung_up["bytes_out"] + sum(line.bytes_out for line in self._lines),
            "bytes_in": self._hung_up["bytes_in"] + sum(line.bytes_in for line in self._lines),
            "cpu_s": times.user + times.system,
            "late": self._late,
            "lost": self._lost,
        }

    def _report(self) -> None:
        total = self._totals()
        print(json.dumps({key: total[key] - self._since.get(key, 0) for key in total}), flush=True)
        self._since = total


def main(port: str, hosts: str, containers: str, hosts_per_app: str, eventful: str, level: str) -> None:
    crowd = [
        CrowdHost(n + 1, int(containers), f"app{n // int(hosts_per_app)}", int(eventful), int(level))
        for n in range(int(hosts))
    ]
    Dialled(int(port), crowd).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
