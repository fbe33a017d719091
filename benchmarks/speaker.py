"""An agent without a kernel: the real protocol on a real socket, with containers that do not exist.

    python -m benchmarks.speaker HOST ADDRESS PORT CONTAINERS SECONDS CA CERT KEY

prints as JSON how long it took to join, each order that answered a throttled container, in seconds, and how
many orders raised a limit and cut one.
"""

import json
import random
import socket
import ssl
import sys
import time
from collections.abc import Callable
from types import TracebackType

from escra_common.messages import (
    Ack,
    Applied,
    Container,
    CpuLimit,
    CpuOrder,
    Heartbeat,
    Message,
    Sample,
    Samples,
    SetLimits,
    Snapshot,
)
from escra_common.session import Session, hello
from escra_common.tls import Credentials, TlsConfig

PERIOD_USEC = 100_000
GIVE_UP_S = 15.0
# An order that takes longer than this is not waited for, but counts as one that took as long.
ORDER_S = 2.0
# Between two containers that are throttled.
PAUSE_S = 0.02


class Speaker:
    """Containers 1 to ``containers``: each came with a limit of one core and uses 0.9 cores.

    Each speaker's are its own: those of one that spoke before under the same name are gone.
    """

    def __init__(
        self,
        port: int,
        containers: int,
        address: str = "127.0.0.1",
        host: str = "speaker",
        tls: ssl.SSLContext | None = None,
        app: str = "bench",
    ) -> None:
        self._app = app
        self._socket = socket.create_connection((address, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=address)
        greeting = hello("agent", host, boot_id=host, cpus=1000)
        self._session = Session(greeting, time.monotonic())
        self._said_at = time.monotonic_ns() // 1000
        self._base = 100_000 * random.randrange(1, 1 << 40)
        self._limits: dict[int, CpuOrder] = {}
        self.raises = self.cuts = 0
        self._counters = {key: [0, 0, 0, 0] for key in range(1, containers + 1)}
        try:
            self._introduce(containers)
        except BaseException:
            self._socket.close()
            raise

    def _introduce(self, containers: int) -> None:
        self._socket.sendall(self._session.greeting(time.monotonic()))
        one_core = CpuLimit(PERIOD_USEC, PERIOD_USEC)
        self._send(
            Snapshot(
                [
                    Container(self.key(n), f"id{n}", f"c{n}", self._app, f"/c{n}", "auto", one_core, one_core)
                    for n in self._counters
                ]
            )
        )
        end = time.monotonic() + GIVE_UP_S
        while len(self._limits) < containers:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._limits)} of {containers} containers have a limit")
            self._receive(0.1)
        self._sample(None)

    def __enter__(self) -> "Speaker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def key(self, number: int) -> int:
        """Of a container, on the wire."""
        return self._base + number

    def throttle(self, key: int) -> float:
        """Say that ``key`` was throttled in the last period; seconds until its higher limit arrives.

        ``ORDER_S`` when none does.
        """
        self.listen(0.0)  # what came of earlier samples meanwhile
        before = self._limits[key]
        began = time.perf_counter()
        self._sample(key)
        while self._limits[key].cpu_milli <= before.cpu_milli:
            left_s = began + ORDER_S - time.perf_counter()
            if left_s <= 0:
                return ORDER_S
            self._receive(left_s)
        return time.perf_counter() - began

    def lowest(self) -> int:
        """The container that has most room to grow."""
        return min(self._limits, key=lambda key: self._limits[key].cpu_milli)

    def listen(self, seconds: float) -> None:
        """Take what comes, for so long at least, and be heard."""
        end = time.monotonic() + seconds
        while self._receive(max(0.0, end - time.monotonic())) or time.monotonic() < end:
            pass

    def say_raw(self, body: object) -> None:
        """Any message at all, with no check of ours."""
        self._socket.sendall(self._session.frame(body, time.monotonic()))

    def _sample(self, throttled: int | None) -> None:
        now = time.monotonic_ns() // 1000
        used, self._said_at = (now - self._said_at) * 9 // 10, now
        samples = []
        for key, counters in self._counters.items():
            order = self._limits[key]
            counters[0] += used
            counters[1] += 1
            counters[2] += key == throttled
            samples.append(Sample(self.key(key), now, counters[0], counters[1], counters[2], 0, 0, order.rev))
        self._send(Samples(samples))

    def _receive(self, seconds: float) -> bool:
        """Whether anything came within this time; says that it is alive when that is due."""
        self._socket.settimeout(min(seconds, 0.1))
        try:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the controller closed the connection")
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            data = b""
        finally:
            self._socket.settimeout(None)
        self._take(data)
        if self._session.heartbeat_due(time.monotonic()):
            self._send(Heartbeat())
        return bool(data)

    def _take(self, data: bytes) -> None:
        acks = []
        for message in self._session.receive(data, time.monotonic()):
            if isinstance(message, SetLimits):
                for order in message.orders:
                    number = order.key - self._base
                    if (before := self._limits.get(number)) is not None:
                        self.raises += order.cpu_milli > before.cpu_milli
                        self.cuts += order.cpu_milli < before.cpu_milli
                    self._limits[number] = order
                    limit = CpuLimit(order.cpu_milli * PERIOD_USEC // 1000, PERIOD_USEC)
                    acks.append(Ack(order.key, order.rev, limit))
        if acks:
            self._send(Applied(acks))

    def _send(self, message: Message) -> None:
        self._socket.sendall(self._session.send(message, time.monotonic()))


def main(
    host: str, address: str, port: str, containers: str, seconds: str, ca: str, cert: str, key: str
) -> None:
    tls = Credentials(TlsConfig(ca, cert, key), server=False).context
    began = time.monotonic()
    with _joined(lambda: Speaker(int(port), int(containers), address, host, tls)) as speaker:
        join_s = time.monotonic() - began
        delays_s: list[float] = []
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            delays_s.append(speaker.throttle(speaker.lowest()))
            speaker.listen(PAUSE_S)
        said = {"join_s": join_s, "delays_s": delays_s, "raises": speaker.raises, "cuts": speaker.cuts}
    print(json.dumps(said))


def _joined(dial: Callable[[], Speaker]) -> Speaker:
    """As an agent does: try again when it is turned away."""
    end = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return dial()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:9])
