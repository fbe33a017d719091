"""A controller that says what the test wants: the real protocol on a real socket, with no sense at all."""

import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from escra_common.messages import (
    Ack,
    Appeared,
    Applied,
    Bye,
    Container,
    MemoryAck,
    MemoryApplied,
    Message,
    Snapshot,
)
from escra_common.session import Session, hello

T = TypeVar("T")


class HostileController:
    """Waits on ``port`` for one agent; ``containers`` are the last it told, by name."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        self._listening.settimeout(15)
        self._session = Session(hello("controller", "hostile"), time.monotonic())
        self._rev = 0
        self.bye = ""
        self.containers: dict[str, Container] = {}
        self.acks: list[Ack] = []
        self.memory_acks: list[MemoryAck] = []

    def __enter__(self) -> "HostileController":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        self._socket.close()

    def meet(self, *names: str) -> None:
        """Take the agent in, and hear of these containers."""
        self._socket, _ = self._listening.accept()
        self._socket.sendall(self._session.greeting(time.monotonic()))
        self.hear_until(lambda: set(names) <= set(self.containers))

    def rev(self) -> int:
        self._rev += 1
        return self._rev

    def say(self, message: Message) -> None:
        self._socket.sendall(self._session.send(message, time.monotonic()))

    def answer(self, message: Message) -> Ack:
        """Give an order about CPU; what the agent says to it."""
        self.acks.clear()
        self.say(message)
        self.hear_until(lambda: bool(self.acks))
        return self.acks[0]

    def memory_answer(self, message: Message) -> MemoryAck:
        self.memory_acks.clear()
        self.say(message)
        self.hear_until(lambda: bool(self.memory_acks))
        return self.memory_acks[0]

    def hear_until(self, met: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < end, "the agent did not say what it should have"
            self.hear(0.1)

    def hear(self, seconds: float) -> None:
        if not select.select([self._socket], [], [], seconds)[0]:
            return
        data = self._socket.recv(1 << 16)
        assert data, f"the agent closed the connection: {self.bye}"
        for message in self._session.receive(data, time.monotonic()):
            match message:
                case Snapshot(containers):
                    self.containers |= {c.name: c for c in containers}
                case Appeared(container):
                    self.containers[container.name] = container
                case Applied(acks):
                    self.acks += acks
                case MemoryApplied(memory_acks):
                    self.memory_acks += memory_acks
                case Bye(reason):
                    self.bye = reason
                case _:
                    pass
