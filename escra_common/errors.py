"""The errors people see.  Each says what failed, why, and where it helps, what to do."""


class EscraError(Exception):
    """Root of everything Escra raises on purpose."""


class WireError(EscraError):
    """The peer, or we, broke the protocol; the connection cannot be trusted any more.

    ``retry`` is false when a new connection would meet the same end (no common version).
    """

    def __init__(self, reason: str, *, retry: bool = True) -> None:
        super().__init__(reason)
        self.retry = retry


class ConfigError(EscraError):
    """The configuration cannot be used; exit status 78 (EX_CONFIG)."""
