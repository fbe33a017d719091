"""One connection's protocol state, without the connection.

NEW -> LIVE -> CLOSED.  Bytes go in, messages come out; nothing here touches a socket or a
clock.  Both daemons and the tests use the same class, so the two ends cannot disagree.
"""

from typing import Any, Literal

from escra_common import __version__
from escra_common.errors import WireError
from escra_common.framing import Decoder, encode
from escra_common.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Bye,
    Count,
    FromAgent,
    FromController,
    Heartbeat,
    Hello,
    Message,
    Snapshot,
)

HEARTBEAT_S = 1.0
# Three heartbeats missed: the peer is gone, whatever TCP believes.
SILENCE_S = 3.0
HELLO_S = 2.0

_TO_AGENT = tuple[Count, FromController]
_TO_CONTROLLER = tuple[Count, FromAgent]


class Session:
    """``now`` is any monotonic clock in seconds, the same for every call.

    Frames are numbered: one that was lost, repeated or overtaken by another on the way ends the session.
    """

    def __init__(self, hello: Hello, now: float) -> None:
        self.peer: Hello | None = None
        self._hello = hello
        self._sent = self._received = 0
        self._decoder = Decoder(accepts=_TO_AGENT if hello.role == "agent" else _TO_CONTROLLER)
        self._opened = now
        self._heard = now
        self._spoke = now
        # Only agents send one: how things stand comes before what changes.
        self._snapshot_missing = hello.role == "controller"

    def greeting(self, now: float) -> bytes:
        """The first bytes to send."""
        return self.send(self._hello, now)

    def send(self, message: Message, now: float) -> bytes:
        return self.frame(message, now)

    def frame(self, body: object, now: float) -> bytes:
        """The next frame, whatever is in it."""
        self._spoke = now
        frame = encode((self._sent, body))
        self._sent += 1
        return frame

    def receive(self, data: bytes, now: float) -> list[Message]:
        """The messages that ``data`` completes, HELLO included.

        Raises WireError for anything that is not exactly right; the connection is then over.
        Messages before the faulty one are lost with it, which levels make harmless.
        """
        messages = []
        for number, message in self._decoder.feed(data):
            self._check_number(number)
            self._check_order(message)
            messages.append(message)
        if data:
            self._heard = now
        return messages

    def heartbeat_due(self, now: float) -> bool:
        return now - self._spoke >= HEARTBEAT_S

    def quiet_s(self, now: float) -> float:
        """For so long, unless something is sent, no heartbeat is due and silence is no fault yet."""
        until = min(self._spoke + HEARTBEAT_S, self._heard + SILENCE_S)
        return (until if self.peer is not None else min(until, self._opened + HELLO_S)) - now

    def check_alive(self, now: float) -> None:
        """Raises WireError when the peer has been silent for too long."""
        if self.peer is None and now - self._opened > HELLO_S:
            raise WireError(f"no HELLO within {HELLO_S:.0f} s")
        if now - self._heard > SILENCE_S:
            raise WireError(f"nothing heard for {SILENCE_S:.0f} s")

    def _check_number(self, number: int) -> None:
        if number != self._received:
            raise WireError(f"frame {number} came where frame {self._received} was due")
        self._received += 1

    def _check_order(self, message: Message) -> None:
        if self.peer is None:
            if not isinstance(message, Hello):
                raise WireError(f"{kind(message)} came before HELLO")
            self._agree(message)
        elif isinstance(message, Hello):
            raise WireError("a second HELLO")
        elif isinstance(message, Snapshot):
            if not self._snapshot_missing:
                raise WireError("a second snapshot")
            self._snapshot_missing = not message.last
        elif self._snapshot_missing and not isinstance(message, Heartbeat | Bye):
            raise WireError(f"{kind(message)} came before the snapshot")

    def _agree(self, hello: Hello) -> None:
        if hello.role == self._hello.role:
            raise WireError(f"both ends are a {hello.role}", retry=False)
        if hello.protocol_min > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
            raise WireError(
                f"{hello.host} runs {hello.software} and speaks protocol "
                f"{hello.protocol_min}-{hello.protocol_max}; this is {software()} and speaks "
                f"{PROTOCOL_MIN}-{PROTOCOL_MAX}; upgrade the older one",
                retry=False,
            )
        self.peer = hello


def kind(message: Message) -> str:
    return type(message).__name__.upper()


def software() -> str:
    return f"escra {__version__}"


def hello(role: Literal["agent", "controller"], host: str, **facts: Any) -> Hello:
    """This software's HELLO."""
    return Hello(role, PROTOCOL_MIN, PROTOCOL_MAX, software(), host, **facts)
