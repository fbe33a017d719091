"""Log lines that a stranger can cause, no more often than they help."""

from collections.abc import Hashable

MAX_KEYS = 1024


class Seldom:
    """Allows a line per key and ``every_s`` seconds."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._said: dict[Hashable, float] = {}

    def allows(self, key: Hashable, now: float) -> bool:
        """Whether to say it now; ``now`` is any monotonic clock in seconds."""
        if now - self._said.get(key, float("-inf")) < self._every_s:
            return False
        if len(self._said) >= MAX_KEYS:
            self._said = {k: at for k, at in self._said.items() if now - at < self._every_s}
        if len(self._said) >= MAX_KEYS:  # so many at once: these lines help nobody either
            return False
        self._said[key] = now
        return True
