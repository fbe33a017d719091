"""Certificates of all kinds for tests, as files, with the [tls] section that names them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from escra_common.tls import TlsConfig
from escra_controller import pki


class Authority:
    """A CA in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pki.init(folder, datetime.now(UTC))

    def issue(
        self, role: pki.Role, name: str, *addresses: str, days: float = 365, ago_days: float = 0
    ) -> TlsConfig:
        """Issued ``ago_days`` ago; in place of what there was."""
        made_at = datetime.now(UTC) - timedelta(days=ago_days)
        if ago_days:
            # The CA must have been there then.
            keep = [(self.folder / name).read_bytes() for name in ("ca.pem", "ca.key")]
            assert keep
        pki.issue(self.folder, role, name, list(addresses), made_at, days=days, force=True)
        ca, cert, key = pki.files(self.folder, role, name)
        return TlsConfig(str(ca), str(cert), str(key))


def section(tls: TlsConfig) -> str:
    return f'[tls]\nca = "{tls.ca}"\ncert = "{tls.cert}"\nkey = "{tls.key}"\n'
