"""What one container has been doing lately, from its cumulative counters."""

import itertools
from typing import NamedTuple

import msgspec

from escra_common.messages import Sample

# Samples come ten times a second while something happens; ten seconds are kept at most, and only as much
# as somebody looks back.
KEPT = 100
KEEP_S = 10.0
# Of those that are not needed any more so many are dropped at once.
DROPPED_AT_ONCE = 4
# Less than this is not work: a timer that looks around now and then, a health check.
IDLE_MILLI = 5


class Interval(msgspec.Struct, frozen=True, gc=False):
    """Between two samples.  ``used`` in millicores, ``throttled`` the share of periods cut short (0..1).

    ``events`` is how often the kernel counted a throttled period, ``lost_usec`` the time lost to throttling,
    summed over processors.
    """

    start: float
    end: float
    used: float
    throttled: float
    rev: int
    events: int = 0
    lost_usec: int = 0


class Demand:
    """Rates and ratios over recent intervals.

    The agent leaves out samples that would say the same as the one before, so the last
    rate seen holds until another arrives.  ``now`` is the controller's clock; durations come
    from the agent's own, which is what divides its counters honestly.
    """

    __slots__ = ("_active_at", "_alarm", "_alarms", "_intervals", "_keep_s", "_least", "_previous", "dry")

    def __init__(self, keep_s: float = KEEP_S, least: int = KEPT, *, alarms: bool = False) -> None:
        """``keep_s`` is how far ``window`` looks back at most, ``least`` the most that is averaged.

        With ``alarms`` it is ``dry`` from a sample that says so to the next one; without it ignores them.
        """
        self._keep_s = keep_s
        self._least = least
        self._alarms = alarms
        self._alarm: Sample | None = None  # since the last tick
        self.dry = False
        self._previous: Sample | None = None
        self._intervals: list[Interval] = []
        self._active_at: float | None = None

    @property
    def latest(self) -> Interval | None:
        return self._intervals[-1] if self._intervals else None

    def observe(self, sample: Sample, now: float, raised_by: int = 0) -> Interval | None:
        """Take a sample; None for the first, and after counters went backwards.

        ``raised_by`` is the revision of the last order that raised the limit (see ``_throttled``).
        An alarm is no interval, for the sample of the tick covers that time, too; but when it was answered,
        what was throttled before it counts no more.
        """
        if sample.dry:
            self.dry = self._alarms and self._previous is not None
            self._alarm = sample if self.dry else None
            return self.latest if self.dry else None
        alarm, self._alarm, self.dry = self._alarm, None, False
        previous, self._previous = self._previous, sample
        if previous is None or sample.time_usec <= previous.time_usec or _went_back(previous, sample):
            return None
        base = alarm if alarm is not None and alarm.rev != sample.rev == raised_by else previous
        raised = base.rev != sample.rev == raised_by
        elapsed_usec = sample.time_usec - previous.time_usec
        interval = Interval(
            now - elapsed_usec / 1e6,
            now,
            (sample.usage_usec - previous.usage_usec) * 1000 / elapsed_usec,
            _throttled(base, sample, raised=raised),
            sample.rev,
            sample.nr_throttled - previous.nr_throttled,
            sample.throttled_usec - previous.throttled_usec,
        )
        self._keep(interval)
        if interval.used >= IDLE_MILLI or interval.throttled:
            self._active_at = now
        elif self._active_at is None:
            self._active_at = interval.start  # it has never been seen to work
        return interval

    def _keep(self, interval: Interval) -> None:
        """The first one that is needed tells how it was when the time looked back at began."""
        intervals, since = self._intervals, interval.end - self._keep_s
        intervals.append(interval)
        if len(intervals) % DROPPED_AT_ONCE:
            return
        expired = 0
        while len(intervals) - expired > self._least and intervals[expired + 1].start <= since:
            expired += 1
        if expired or len(intervals) > KEPT:
            del intervals[: max(expired, len(intervals) - KEPT)]

    def since(self, seen: Interval | None) -> list[Interval]:
        """What came after ``seen``, newest first; all that is kept when that is not among it."""
        new = []
        for interval in reversed(self._intervals):
            if interval is seen:
                break
            new.append(interval)
        return new

    def used(self) -> float:
        """The last rate seen, in millicores."""
        return self._intervals[-1].used if self._intervals else 0.0

    def throttled(self) -> float:
        """The throttled ratio last seen, or about to be."""
        return self.mean_throttled(1)

    def mean_throttled(self, n: int) -> float:
        """Mean throttled ratio of the last ``n`` intervals; missing ones count as not throttled.

        Who is dry will be throttled in all of the one under way.
        """
        if n <= 0:
            return 0.0
        ended = n - self.dry
        recent = self._intervals[-ended:] if ended else []
        return (self.dry + sum([interval.throttled for interval in recent])) / n

    def ended_after(self, at: float) -> list[Interval]:
        """The intervals that ended after ``at``, oldest first; they go back ten seconds at most."""
        recent = itertools.takewhile(lambda interval: interval.end > at, reversed(self._intervals))
        return list(recent)[::-1]

    def window(self, since: float) -> "Window | None":
        """Mean and peak use and throttling from ``since`` on; None when nothing is known that far back."""
        if not self._intervals or self._intervals[0].start > since:
            return None
        weighted = covered = peak = throttled = 0.0
        for interval in reversed(self._intervals):
            if interval.end <= since:
                break
            start, used = interval.start, interval.used
            length = interval.end - (start if start > since else since)
            weighted += used * length
            covered += length
            if used > peak:
                peak = used
            if interval.throttled > throttled:
                throttled = interval.throttled
        if not covered:
            # Nothing new since then: what was last seen still holds.
            last = self._intervals[-1]
            return Window(last.used, last.used, 0.0)
        return Window(weighted / covered, peak, throttled)

    def idle_for(self, now: float) -> float:
        """Seconds without any use; 0 when it has never been seen to rest."""
        latest = self.latest
        if latest is None or latest.used >= IDLE_MILLI:
            return 0.0
        return now - self._active_at if self._active_at is not None else 0.0


class Window(NamedTuple):
    mean_used: float
    peak_used: float
    throttled: float


def _throttled(previous: Sample, sample: Sample, *, raised: bool) -> float:
    """th_i: growth of nr_throttled by growth of nr_periods, and what our own writes hid of it.

    A write inside a period un-throttles the group, so the event never reaches nr_throttled, but
    the time already lost does reach throttled_time (K4, measured).  A write that raised the
    limit is the exception: what it ended was the old limit's throttling, answered already.
    """
    periods = sample.nr_periods - previous.nr_periods
    events = sample.nr_throttled - previous.nr_throttled
    if periods > 0 and events > 0:
        return min(1.0, events / periods)
    hidden = sample.writes > previous.writes and sample.throttled_usec > previous.throttled_usec
    # A group whose processes ended while throttled is un-throttled by a write too, and wants nothing.
    hidden = hidden and sample.usage_usec > previous.usage_usec
    return 1.0 if hidden and not raised else 0.0


def _went_back(previous: Sample, sample: Sample) -> bool:
    return (
        sample.usage_usec < previous.usage_usec
        or sample.nr_periods < previous.nr_periods
        or sample.nr_throttled < previous.nr_throttled
    )
