"""A TCP connection with a counter in it."""

import contextlib
import socket
import threading
import time
from collections import Counter
from types import TracebackType

# Ethernet, IPv4 and TCP with time stamps, of a segment and of the one that acknowledges it.
HEADER_BYTES = 14 + 20 + 32
READ_BYTES = 1 << 16


class Relay:
    """Passes every connection to ``port`` on to 127.0.0.1:``target_port``, while in its block.

    ``counted`` has the payload bytes by direction, "up" towards the target, and "on_the_wire" those of both
    with headers, as if each piece had been one segment that was acknowledged by itself.

    Each piece takes ``delay_s`` on its way, and waits for those before it.
    """

    def __init__(self, target_port: int, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self.counted: Counter[str] = Counter()
        self._target_port = target_port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._socket]
        self._threads = [threading.Thread(target=self._serve)]

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def __enter__(self) -> "Relay":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target_port))
                except ConnectionRefusedError:  # it listens later
                    near.close()
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [near, far]
                for direction, source, sink in (("up", near, far), ("down", far, near)):
                    thread = threading.Thread(target=self._pass_on, args=(direction, source, sink))
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(READ_BYTES):
                self.counted[direction] += len(data)
                self.counted["on_the_wire"] += len(data) + 2 * HEADER_BYTES
                if self._delay_s:
                    time.sleep(self._delay_s)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
