"""A private CA in a folder: the certificates that agents and controllers show each other.

    ca.pem ca.key                          the CA; whoever has its key can make anybody's certificate
    agent-NAME.pem, controller-NAME.pem    certificates, each with its .key
    issued.jsonl                           what was issued, one object per line

Roles are kept apart by the extended key usage, which TLS checks: an agent's certificate is good
for a client only, a controller's for a server only.
"""

import ipaddress
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from escra_common.errors import EscraError

Role = Literal["agent", "controller"]

CA_DAYS = 3650
LEAF_DAYS = 365
# Certificates begin a day early, so that a clock that lags can use them at once; with that day
# a certificate lives for the 398 days that TLS libraries accept at most.
EARLY = timedelta(days=1)
MAX_LEAF_DAYS = 397
_USAGE = {"agent": ExtendedKeyUsageOID.CLIENT_AUTH, "controller": ExtendedKeyUsageOID.SERVER_AUTH}


class PkiError(EscraError):
    """The CA cannot do that; nothing was overwritten."""


class Issued(msgspec.Struct, frozen=True):
    """A line of the record; times are unix seconds, the serial is in hexadecimal."""

    role: Role
    name: str
    addresses: list[str]
    serial: str
    not_before: int
    not_after: int


def init(folder: Path, now: datetime, *, force: bool = False) -> x509.Certificate:
    """Make the CA's key and certificate in ``folder``, good for ten years."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_to_replace(folder / "ca", force)
    key = ec.generate_private_key(ec.SECP256R1())
    # Two CAs in one file, as while one replaces the other, need different names.
    name = _name(f"Escra CA {now:%Y-%m-%d} {secrets.token_hex(3)}")
    builder = (
        _builder(name, name, key.public_key(), now - EARLY, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    _save(folder / "ca", key, certificate, force)
    return certificate


def issue(
    folder: Path,
    role: Role,
    name: str,
    addresses: list[str],
    now: datetime,
    *,
    days: int = LEAF_DAYS,
    force: bool = False,
) -> Issued:
    """Make a key and a certificate for ``name``, which is also in it when it is an address.

    It ends after ``days``, or with its CA.  Raises PkiError for a name that no certificate can have.
    """
    authority, authority_key = _authority(folder)
    if not authority.not_valid_before_utc <= now < authority.not_valid_after_utc:
        raise PkiError(
            f"the CA in {folder} ended on {authority.not_valid_after_utc:%Y-%m-%d}; make a new one elsewhere"
        )
    target = _target(folder, role, name)
    _refuse_to_replace(target, force)
    names = [_alternative_name(each) for each in dict.fromkeys([name, *addresses])]
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + timedelta(days=days), authority.not_valid_after_utc)
    begin = max(now - EARLY, authority.not_valid_before_utc)
    certificate = (
        _builder(_name(name), authority.subject, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGE[role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    issued = Issued(
        role,
        name,
        addresses,
        f"{certificate.serial_number:x}",
        int(certificate.not_valid_before_utc.timestamp()),
        int(certificate.not_valid_after_utc.timestamp()),
    )
    # The record first: one without a certificate does no harm.
    _record(folder, issued)
    _save(target, key, certificate, force)
    return issued


def issued(folder: Path) -> list[Issued]:
    """Everything that was issued, oldest first."""
    path = folder / "issued.jsonl"
    try:
        lines = path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Issued) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise PkiError(f"cannot read {path}: {error}") from error


def files(folder: Path, role: Role, name: str) -> tuple[Path, Path, Path]:
    """The CA's certificate, the certificate and its key: what ``[tls]`` wants."""
    target = _target(folder, role, name)
    return folder / "ca.pem", _with(target, ".pem"), _with(target, ".key")


# ---- certificates ------------------------------------------------------------------


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin.astimezone(UTC))
        .not_valid_after(end.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    # A common name has 64 characters at most; what is checked is the alternative name.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    plain = text.isascii() and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    if not plain or len(text) > 253 or not all(0 < len(label) < 64 for label in labels):
        raise PkiError(f"{text!r} is neither a host name nor an IP address")
    return x509.DNSName(text)


# ---- the folder --------------------------------------------------------------------


def _target(folder: Path, role: Role, name: str) -> Path:
    _alternative_name(name)  # also: nothing that leads out of the folder
    return folder / f"{role}-{name}"


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except FileNotFoundError as error:
        raise PkiError(f"there is no CA in {folder}; make one: escra-controller pki init") from error
    except (OSError, ValueError, TypeError) as error:
        raise PkiError(f"cannot use the CA in {folder}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise PkiError(f"cannot use the CA in {folder}: ca.key is not the key of ca.pem")
    return certificate, key


def _refuse_to_replace(target: Path, force: bool) -> None:
    taken = [path for path in (_with(target, ".key"), _with(target, ".pem")) if path.exists()]
    if taken and not force:
        raise PkiError(f"{taken[0]} exists; --force replaces it")


def _save(target: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, force: bool) -> None:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(_with(target, ".key"), secret, 0o600, force)
    _write(_with(target, ".pem"), certificate.public_bytes(serialization.Encoding.PEM), 0o644, force)


def _write(path: Path, data: bytes, mode: int, force: bool) -> None:
    """All of it or nothing, and without ``force`` never over a file that is there."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if force:
            fresh.replace(path)
        else:
            path.hardlink_to(fresh)
    except FileExistsError as error:
        raise PkiError(f"{path} exists; --force replaces it") from error
    except OSError as error:
        raise PkiError(f"cannot write {path}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _record(folder: Path, entry: Issued) -> None:
    path = folder / "issued.jsonl"
    try:
        # One write to the end: two issuers at once cannot mix their lines.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb", 0) as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            os.fsync(file.fileno())
    except OSError as error:
        raise PkiError(f"cannot write {path}: {error.strerror}") from error


def _with(target: Path, suffix: str) -> Path:
    """Not with_suffix: host names have dots."""
    return target.with_name(target.name + suffix)
