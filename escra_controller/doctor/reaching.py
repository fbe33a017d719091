"""Does who should answer, answer: controllers over the wire, the control socket, the metrics page."""

import grp
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

from escra_common.configfile import Address
from escra_common.errors import EscraError
from escra_common.messages import Hello
from escra_common.session import Session, hello
from escra_common.tls import TlsConfig, context, reason
from escra_controller.client import QueryError, query
from escra_controller.doctor.facts import Answer, Socket

REACH_S = 3.0


def reach(address: str, tls: TlsConfig | None) -> Answer:
    """As an agent would come, saying nothing: a controller that accepts who is there says HELLO first."""
    at = Address(address)
    try:
        with socket.create_connection((at.host, at.port), timeout=REACH_S) as plain:
            if tls is None:
                return _hear(address, plain)
            with context(tls, server=False).wrap_socket(plain, server_hostname=at.host) as peer:
                return _hear(address, peer)
    except TimeoutError:
        return Answer(address, f"no answer within {REACH_S:g} s")
    except OSError as error:
        return Answer(address, reason(error))
    except EscraError as error:
        return Answer(address, str(error))


def _hear(address: str, peer: socket.socket) -> Answer:
    session = Session(hello("agent", socket.gethostname()), time.monotonic())
    end = time.monotonic() + REACH_S
    while time.monotonic() < end:
        data = peer.recv(1 << 14)
        if not data:
            return Answer(address, "it closed the connection without a word")
        for message in session.receive(data, time.monotonic()):
            if isinstance(message, Hello):
                return Answer(address, "", message.software, message.host, message.standby)
    return Answer(address, f"no HELLO within {REACH_S:g} s")


def ask_socket(path: Path, group: str) -> Socket:
    try:
        grp.getgrnam(group)
        known = True
    except KeyError:
        known = group != "escra"
    try:
        status: dict[str, Any] = query(path, {"op": "status"}, REACH_S)
    except QueryError as error:
        return Socket(str(path), error=str(error), group=known)
    return Socket(str(path), problems=status["problems"], group=known)


def read_metrics(address: str) -> str:
    """Why the page cannot be read; "" when it can, or is off."""
    if not address:
        return ""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=REACH_S) as page:
            ours = b"escra_build_info" in page.read()
    except (OSError, ValueError) as error:
        return f"no answer: {getattr(error, 'reason', error)}"
    return "" if ours else "something else than Escra answers there"
