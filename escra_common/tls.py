"""Mutual TLS 1.3: both ends show a certificate of the same private CA, or nobody talks."""

import ssl
from pathlib import Path
from typing import Any

import msgspec

from escra_common.errors import ConfigError
from escra_common.service import credential


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[tls]``: PEM files.  A name without a slash is a systemd credential (``LoadCredential=``)."""

    ca: str
    cert: str
    key: str


def context(config: TlsConfig, *, server: bool) -> ssl.SSLContext:
    """Raises ConfigError naming the file that cannot be used."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.verify_mode = ssl.CERT_REQUIRED
    ca, cert, key = _file(config.ca), _file(config.cert), _file(config.key)
    try:
        tls.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[tls] ca: cannot use {ca}: {error}") from error
    try:
        tls.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[tls] cert and key: cannot use {cert} with {key}: {error}") from error
    return tls


def certified_names(peer_certificate: dict[str, Any] | None) -> set[str]:
    """The host names a verified certificate speaks for."""
    names = (peer_certificate or {}).get("subjectAltName", ())
    return {value for kind, value in names if kind in ("DNS", "IP Address")}


def _file(name: str) -> Path:
    if "/" in name:
        return Path(name)
    path = credential(name)
    if path is None:
        raise ConfigError(
            f"[tls] there is no credential {name!r}; add LoadCredential={name}:PATH to the unit"
        )
    return path
