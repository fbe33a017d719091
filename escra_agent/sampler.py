"""What of all that is read each tick is worth sending.  Pure."""

from escra_agent.counters import Counters

# A rate that moved by less than this says nothing new (millicores, and share of the limit).
LEAST_MILLI = 10
LEAST_SHARE = 0.05
# Less than this is idle to the controller, too (millicores).
IDLE_MILLI = 5
# Something busy is reported this often, so that people see fresh numbers; all of a host in the same tick, for
# a message costs more than what is in it.
REFRESH_USEC = 1_000_000


class Sampler:
    """One per container.  ``judge`` takes every reading and returns those to send, oldest first.

    Throttling is always sent, together with the reading before it when that was held back:
    the controller must see the throttled periods undiluted by quiet ones.
    """

    def __init__(self) -> None:
        self._sent: Counters | None = None
        self._last: Counters | None = None
        self._sent_rate: float | None = None  # until a first rate was told
        # When there was first something to tell since, if it could wait; 0 if not.
        self._untold_usec = 0

    def judge(self, now: Counters) -> list[Counters]:
        last, self._last = self._last, now
        if last is None or self._sent is None:
            self._sent = now
            return [now]
        rate = _rate(last, now)
        throttled = now.nr_throttled != last.nr_throttled or now.throttled_usec != last.throttled_usec
        if not (throttled or self._moved(rate, now) or self._due(rate, now)):
            return []
        held_back = [last] if last is not self._sent else []
        self._sent, self._sent_rate, self._untold_usec = now, rate, 0
        return [*held_back, now]

    @property
    def told_idle(self) -> bool:
        return self._sent_rate == 0

    @property
    def silent(self) -> bool:
        """Whether there is nothing to tell of one that is idle."""
        return self.told_idle and not self._untold_usec

    @property
    def can_wait(self) -> bool:
        """Whether one that is idle by now has nothing to tell before the next ``REFRESH_USEC`` begins."""
        return self._sent_rate is not None

    def rested(self, time_usec: int) -> None:
        """Until then every reading would have been as the last one."""
        if self._last is not None:
            self._last = self._last._replace(time_usec=time_usec)

    def _moved(self, rate: float, now: Counters) -> bool:
        if self._sent_rate is None:
            return True
        quota = now.limit.quota_usec
        limit = 0.0 if quota is None else quota * 1000 / now.limit.period_usec
        return abs(rate - self._sent_rate) > max(LEAST_MILLI, LEAST_SHARE * limit)

    def _due(self, rate: float, now: Counters) -> bool:
        """An idle container that stays idle is silent; one that falls idle from next to nothing can wait, and
        so can one that was idle and does next to nothing.
        """
        assert self._sent is not None
        since_usec = self._sent.time_usec
        if self.told_idle and rate < IDLE_MILLI:
            if now.usage_usec == self._sent.usage_usec:
                return False
            since_usec = self._untold_usec = self._untold_usec or now.time_usec
        return now.time_usec // REFRESH_USEC != since_usec // REFRESH_USEC


def _rate(last: Counters, now: Counters) -> float:
    """Millicores."""
    elapsed = now.time_usec - last.time_usec
    return (now.usage_usec - last.usage_usec) * 1000 / elapsed if elapsed > 0 else 0.0
