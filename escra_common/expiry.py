"""When certificates end, and when people must hear of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

DAY_S = 86_400.0
WARN_S = 30 * DAY_S
REMIND_S = DAY_S


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long a certificate is valid, in unix seconds; ``what`` names it to people."""

    what: str
    not_before: float
    not_after: float

    @property
    def warn_from(self) -> float:
        """30 days before the end, or for what lives shorter, its last third."""
        return self.not_after - min(WARN_S, (self.not_after - self.not_before) / 3)

    def usable(self, wall: float) -> bool:
        """Whether a peer would accept it at the unix time ``wall``."""
        return self.not_before <= wall <= self.not_after

    def problem(self, wall: float) -> str:
        """What to do about it at the unix time ``wall``; empty when all is well."""
        if wall < self.not_before:
            return f"{self.what} is valid only from {_date(self.not_before)} on; is the clock right?"
        if wall > self.not_after:
            return f"{self.what} ended on {_date(self.not_after)} and is refused; issue a new one"
        if wall < self.warn_from:
            return ""
        return (
            f"{self.what} ends in {_left(self.not_after - wall)}, on {_date(self.not_after)}; issue a new one"
        )


class Reminders:
    """Says each problem once a day."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def due(self, expiries: Iterable[Expiry], now: float, wall: float) -> list[str]:
        """The problems to log; ``now`` is monotonic, so that a set clock does not repeat them."""
        troubled = {expiry.what: problem for expiry in expiries if (problem := expiry.problem(wall))}
        self._said = {what: at for what, at in self._said.items() if what in troubled}
        due = [what for what in troubled if now - self._said.get(what, float("-inf")) >= REMIND_S]
        self._said |= dict.fromkeys(due, now)
        return [troubled[what] for what in due]


def _date(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _left(seconds: float) -> str:
    """
    >>> _left(3.2 * DAY_S), _left(1.5 * 3600)
    ('3 days', '1 hours')
    """
    return f"{seconds // DAY_S:.0f} days" if seconds >= 2 * DAY_S else f"{seconds // 3600:.0f} hours"
