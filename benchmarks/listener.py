"""A controller that only speaks: one agent, fixed limits for all that it brings, and cheap."""

import contextlib
import socket
import threading
import time
from types import TracebackType

from escra_common.messages import (
    Container,
    CpuOrder,
    Heartbeat,
    MemoryOrder,
    Message,
    SetLimits,
    SetMemory,
    Snapshot,
)
from escra_common.session import Session, hello

HEARTBEAT_S = 0.5
START_S = 30.0


class Listener:
    """Serves in a thread of its own while in its block; ``managed`` counts containers."""

    def __init__(self, cpu_milli: int, memory_bytes: int) -> None:
        self._limits = cpu_milli, memory_bytes
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.managed = 0

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        self._socket.settimeout(START_S)
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        session = Session(hello("controller", "listener", epoch=1), time.monotonic())
        connection.settimeout(HEARTBEAT_S)
        connection.sendall(session.greeting(time.monotonic()))
        spoke = time.monotonic()
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                data = connection.recv(1 << 16)
                if not data:
                    return
                for message in session.receive(data, time.monotonic()):
                    for answer in self._answers(message):
                        connection.sendall(session.send(answer, time.monotonic()))
            if time.monotonic() - spoke > HEARTBEAT_S:
                spoke = time.monotonic()
                connection.sendall(session.send(Heartbeat(), spoke))

    def _answers(self, message: Message) -> list[Message]:
        if not isinstance(message, Snapshot):
            return []
        self.managed += len(message.containers)
        return [*self._orders(message.containers)]

    def _orders(self, containers: list[Container]) -> list[Message]:
        cpu_milli, memory_bytes = self._limits
        return [
            SetLimits([CpuOrder(c.key, 1, cpu_milli) for c in containers]),
            SetMemory([MemoryOrder(c.key, 1, memory_bytes) for c in containers]),
        ]
