"""Certificates for tests, good and bad, as files, and the [tls] section that names them."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from escra_common.tls import TlsConfig
from escra_controller import pki

CA_AGE_DAYS = 500


class Authority:
    """A CA in ``folder``, made long enough ago to have issued what has ended since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pki.init(folder, datetime.now(UTC) - timedelta(days=CA_AGE_DAYS))

    def issue(
        self, role: pki.Role, name: str, *addresses: str, days: int = 365, ago_days: float = 0
    ) -> TlsConfig:
        """Good for ``days`` from ``ago_days`` ago on; in the place of an earlier one."""
        at = datetime.now(UTC) - timedelta(days=ago_days)
        pki.issue(self.folder, role, name, list(addresses), at, days=days, force=True)
        ca, cert, key = pki.files(self.folder, role, name)
        return TlsConfig(str(ca), str(cert), str(key))


def section(tls: TlsConfig) -> str:
    return f'[tls]\nca = "{tls.ca}"\ncert = "{tls.cert}"\nkey = "{tls.key}"\n'


def replace(target: TlsConfig, source: TlsConfig, *, ca: bool = True) -> None:
    """Put the files of ``source`` where ``target`` looks for them."""
    for name in ("ca", "cert", "key") if ca else ("cert", "key"):
        fresh = Path(getattr(target, name) + ".new")
        shutil.copy(getattr(source, name), fresh)
        fresh.replace(getattr(target, name))
