"""Records for journald, in its native protocol.

One datagram per record, so that fields can be matched: ``journalctl ESCRA_APP=shop``.
Format: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import os
import re
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache

JOURNAL_SOCKET = "/run/systemd/journal/socket"
# A datagram is bounded by the socket's send buffer (208 KiB by default); this leaves room
# for two dozen of the longest values.
MAX_VALUE_BYTES = 8192

# journald drops a field whose name is not of this form, so nothing else is sent.
_NOT_IN_NAME = re.compile(r"[^A-Z0-9_]")


def connected_to_stderr() -> bool:
    """True when journald reads this process's stderr: only then is it the right place to log."""
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


@lru_cache(1024)
def field_name(key: str) -> str:
    """Ours carry a prefix, so that they collide with no other program's.

    >>> field_name("container")
    'ESCRA_CONTAINER'
    """
    return "ESCRA_" + _NOT_IN_NAME.sub("_", key.upper())[:58]


def encode(fields: Mapping[str, str]) -> bytes:
    """One record; a value that is too long is cut, and says so."""
    # Nearly all values are short texts of one line: these are encoded together.
    plain, others = [], []
    for name, value in fields.items():
        if len(value) > MAX_VALUE_BYTES // 8 or "\n" in value:
            others.append(_encode_field(name.encode(), value))
        else:
            plain.append(f"{name}={value}\n")
    return "".join(plain).encode(errors="backslashreplace") + b"".join(others)


def _encode_field(name: bytes, value: str) -> bytes:
    raw = value.encode(errors="backslashreplace")
    if len(raw) > MAX_VALUE_BYTES:
        raw = raw[:MAX_VALUE_BYTES] + b"... (cut)"
    if b"\n" in raw:
        return name + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
    return name + b"=" + raw + b"\n"


class Journal:
    """Sends records and never waits: what a stuck journald cannot take is dropped and counted."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self.dropped = 0
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, record: bytes) -> None:
        if self.dropped:
            record += b"ESCRA_LOG_DROPPED=%d\n" % self.dropped
        try:
            # By address each time: journald may be restarted under us.
            self._socket.sendto(record, self._path)
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        self._socket.close()
