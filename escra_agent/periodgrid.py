"""When the periods of a container begin; readings only tell that one did between two of them.  Pure.

The kernel forwards a group's period timer by whole periods, also past those in which it was off.  So all
beginnings lie on a grid, and every one that was seen says within which interval it lies; together they
leave little.
"""

from escra_agent.counters import Counters


class PeriodGrid:
    """Times are monotonic, in us."""

    __slots__ = ("_earliest_usec", "_latest_usec", "_period_usec")

    def __init__(self) -> None:
        self._period_usec = 0
        # Of one beginning.
        self._earliest_usec = self._latest_usec = 0

    def saw(self, before: Counters, now: Counters) -> None:
        """A period began between these two readings."""
        period_usec, width_usec = now.limit.period_usec, now.time_usec - before.time_usec
        known_usec = self._latest_usec - self._earliest_usec
        if (
            self._period_usec == period_usec
            and known_usec <= width_usec
            and known_usec + width_usec >= period_usec
        ):
            return  # nothing new, and no telling which of the beginnings it was
        earliest_usec, latest_usec = before.time_usec, now.time_usec
        if self._period_usec == period_usec and known_usec + width_usec < period_usec:
            shift_usec = (latest_usec - self._earliest_usec) // period_usec * period_usec
            earliest_usec = max(earliest_usec, self._earliest_usec + shift_usec)
            latest_usec = min(latest_usec, self._latest_usec + shift_usec)
            if earliest_usec > latest_usec:
                # The timer was late, or is another one.
                earliest_usec, latest_usec = before.time_usec, now.time_usec
        self._period_usec, self._earliest_usec, self._latest_usec = period_usec, earliest_usec, latest_usec

    def began_usec(self, time_usec: int) -> int | None:
        """The last beginning until then, as likely as not; None before one was seen."""
        if not self._period_usec:
            return None
        middle_usec = (self._earliest_usec + self._latest_usec) // 2
        return time_usec - (time_usec - middle_usec) % self._period_usec
