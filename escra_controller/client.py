"""Asks a running controller one question over its control socket.

The protocol: frames as on the agents' wire.  A request is ``{"op": ..., arguments}``; the reply
``{"ok": true, "data": ...}`` or ``{"ok": false, "error": "a sentence", "code": exit status}``.
"""

import os
import socket
import time
from typing import Any

from escra_common import frame
from escra_common.errors import EscraError, WireError

# Not a Path: pathlib alone takes as long to load as a table of a thousand rows.
Address = str | os.PathLike[str]

DEFAULT_SOCKET = "/run/escra/controller.sock"
MAX_REQUEST_BYTES = 64 << 10
# The rows of ten thousand containers; far above what one controller manages.
MAX_REPLY_BYTES = 16 << 20

_MOST_AT_ONCE = 1 << 20

FAILED = 1
NOT_RUNNING = 3
NO_SUCH_THING = 4


class QueryError(EscraError):
    """There is no answer; ``code`` is the exit status that says why."""

    def __init__(self, reason: str, code: int = FAILED) -> None:
        super().__init__(reason)
        self.code = code


def query(path: Address, request: dict[str, Any], timeout: float = 2.0) -> Any:
    """The reply's data.  ``timeout`` seconds bound the whole exchange; raises QueryError."""
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(frame.encode(request, MAX_REQUEST_BYTES))
            reply = _receive(connection, deadline)
        except OSError as error:
            raise explained(path, timeout, error) from error
        except WireError as error:
            raise QueryError(f"cannot use the answer from {path}: {error}") from error
    return data_of(path, reply)


def data_of(path: Address, reply: Any) -> Any:
    """Raises QueryError for a refusal, and for what is no reply."""
    match reply:
        case {"ok": True, "data": data}:
            return data
        case {"ok": False, "error": str(reason), "code": int(code)}:
            raise QueryError(reason, code)
    raise QueryError(f"{path} is not an Escra controller's socket, or is of another version")


def _receive(connection: socket.socket, deadline: float) -> Any:
    head = _exactly(connection, frame.LENGTH.size, deadline)
    return frame.decode(_exactly(connection, frame.announced(head, MAX_REPLY_BYTES), deadline))


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        if (left := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(min(size - len(received), _MOST_AT_ONCE))
        if not data:
            raise WireError("the controller closed the connection without an answer")
        received += data
    return bytes(received)


def explained(path: Address, timeout: float, error: OSError) -> QueryError:
    """What an error of the socket means to a person."""
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return QueryError(
                f"the controller is not running: nothing listens on {path}; "
                "start it with: systemctl start escra-controller",
                NOT_RUNNING,
            )
        case PermissionError():
            return QueryError(
                f"cannot reach the controller at {path}: permission denied; "
                "add yourself to group escra (usermod -aG escra USER) and log in again"
            )
        case TimeoutError():
            return QueryError(f"the controller at {path} gave no answer within {timeout:g} s; see --timeout")
    return QueryError(f"cannot talk to the controller at {path}: {error.strerror or error}")
