"""Mutual TLS 1.3: both ends show a certificate of the same private CA, or nobody talks."""

import contextlib
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from escra_common.errors import ConfigError
from escra_common.expiry import Expiry
from escra_common.service import credential

# X509_V_FLAG_NO_CHECK_TIME (OpenSSL 1.1.0): ssl takes the number, but has no name for it.
_NO_CHECK_TIME = 0x200000
# TLS 1.3 is done after two of each side; one more shows that nothing is missing.
_FLIGHTS = 3


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[tls]``: PEM files.  A name without a slash is a systemd credential (``LoadCredential=``)."""

    ca: str
    cert: str
    key: str


class Credentials:
    """A daemon's certificate, key and CA; ``refresh()`` takes renewed files.

    Use ``context`` afresh for each connection: a renewal replaces it, so that a CA taken out
    of the file is trusted no more, and what is connected stays connected.
    """

    def __init__(self, config: TlsConfig, *, server: bool) -> None:
        """Raises ConfigError when the files do not fit together.

        A certificate that has ended is taken: the daemon runs, says so, and waits for new files.
        """
        self._config = config
        self._server = server
        self._loaded = self._seen = self._stamps()
        self.expiries = expiries(config, server=server)
        self.context = context(config, server=server)

    def changed(self) -> bool:
        """Whether other files are in place, and the same as at the last call.

        Three files are not replaced at once: whoever looks in between sees a key that does not fit.
        """
        seen, self._seen = self._seen, self._stamps()
        return self._seen == seen != self._loaded

    def refresh(self) -> bool:
        """Use the files as they are now; false when they are those in use.

        Raises ConfigError when they do not work, or not now; everything then stays as it was.
        """
        stamps = self._stamps()
        if stamps == self._loaded:
            return False
        found = expiries(self._config, server=self._server)
        own, wall = found[0], time.time()
        if not own.usable(wall):
            raise ConfigError(f"[tls] cert: {own.problem(wall)}")
        self.context = context(self._config, server=self._server)
        self.expiries = found
        self._loaded = stamps
        return True

    def _stamps(self) -> list[tuple[int, int] | None]:
        """What tells a file from the one that was there before."""
        stamps: list[tuple[int, int] | None] = []
        for name in (self._config.ca, self._config.cert, self._config.key):
            try:
                found = _file(name).stat()
                stamps.append((found.st_ino, found.st_mtime_ns))
            except (OSError, ConfigError):
                stamps.append(None)
        return stamps


def context(config: TlsConfig, *, server: bool) -> ssl.SSLContext:
    """Raises ConfigError naming the file that cannot be used.

    A client checks the name or address it dialled against the server's certificate.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.verify_mode = ssl.CERT_REQUIRED
    if server:
        # No resumption: whoever comes back shows a certificate that is valid and trusted by then.
        tls.num_tickets = 0
    ca, cert, key = _file(config.ca), _file(config.cert), _file(config.key)
    try:
        tls.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[tls] ca: cannot use {ca}: {error}") from error
    try:
        # Never asked for a passphrase: a daemon has nobody to ask.
        tls.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[tls] cert and key: cannot use {cert} with {key}: {error}") from error
    return tls


def expiries(config: TlsConfig, *, server: bool) -> list[Expiry]:
    """When the own certificate ends, then each CA of the file.

    Raises ConfigError when the files do not work together: a key of another certificate, a
    certificate of another CA, or one issued for the other role.  That it ended is no error here.
    """
    mine = "this controller's certificate" if server else "this agent's certificate"
    own = _as_seen_by_a_peer(config, server=server)
    authorities = context(config, server=server).get_ca_certs()
    return [
        _expiry(f"{mine} ({_file(config.cert)})", own),
        *(_expiry(f"the CA {_common_name(ca)} ({_file(config.ca)})", ca) for ca in authorities),
    ]


def peer_expiry(what: str, certificate: Mapping[str, Any] | None) -> list[Expiry]:
    """When a peer's certificate ends; nothing without TLS."""
    return [_expiry(what, certificate)] if certificate else []


def certified_names(peer_certificate: Mapping[str, Any] | None) -> set[str]:
    """The host names and addresses a verified certificate speaks for, in lower case."""
    names = (peer_certificate or {}).get("subjectAltName", ())
    return {value.lower() for kind, value in names if kind in ("DNS", "IP Address")}


def reason(error: OSError) -> str:
    """Why a connection failed, in words; OpenSSL's own come with source lines."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate not accepted: {error.verify_message.rstrip('.')}"
        case ssl.SSLError() if error.reason:
            return f"TLS: {error.reason.lower().replace('_', ' ')}"
        case ConnectionError() if not str(error):  # uvloop's, when the end comes within a handshake
            return "the other end hung up"
        case _:
            return error.strerror or str(error) or type(error).__name__


def _as_seen_by_a_peer(config: TlsConfig, *, server: bool) -> dict[str, Any]:
    """The own certificate's fields: ssl shows them to a peer only, so both ends are played here."""
    ours, theirs = context(config, server=server), context(config, server=not server)
    for tls in (ours, theirs):
        tls.check_hostname = False
    ours.verify_mode = ssl.CERT_NONE
    theirs.verify_flags |= _NO_CHECK_TIME
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = ours.wrap_bio(to_us, to_them, server_side=server)
    them = theirs.wrap_bio(to_them, to_us, server_side=not server)
    try:
        for _ in range(_FLIGHTS):
            _step(us)
            _step(them)
        return them.getpeercert() or {}
    except ssl.SSLError as error:
        role, flag = ("a controller", "--controller ") if server else ("an agent", "")
        raise ConfigError(
            f"[tls] {_file(config.cert)} does not work as {role}'s certificate under the CA in "
            f"{_file(config.ca)}: {reason(error)}; make one by `escra-controller pki issue {flag}NAME`"
        ) from error


def _step(side: ssl.SSLObject) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):  # it is the other side's turn
        side.do_handshake()


def _expiry(what: str, certificate: Mapping[str, Any]) -> Expiry:
    begin, end = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    return Expiry(what, begin, end)


def _common_name(certificate: Mapping[str, Any]) -> str:
    names = {key: value for part in certificate["subject"] for key, value in part}
    return str(names.get("commonName") or names.get("organizationName") or "without a name")


def _file(name: str) -> Path:
    if "/" in name:
        return Path(name)
    path = credential(name)
    if path is None:
        raise ConfigError(
            f"[tls] there is no credential {name!r}; add LoadCredential={name}:PATH to the unit"
        )
    return path
