"""Who rests: a container in which nothing moves is looked at through one file, until something does.

Most containers of a host do nothing most of the time.  While the CPU time used stands still, no counter moves
and no task of the container allocates; and of a limit that somebody writes the kernel gives notice.
"""

import time
from collections.abc import Mapping

import structlog

from escra_agent.notices import WriteNotices
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError

log = structlog.get_logger()

# Ticks between two looks at the memory of one that rests: a socket may take some without a task.
MEMORY_EVERY = 10
# And between two looks at all of everybody, come what may.
WHOLE_EVERY = 200
# The turn of one container in that, so that its other turns (memorylevels.py) do not come in the same tick.
_WHOLE_TURN = 10


class Resting:
    """``wake`` comes first in a tick, ``settle`` last; in between those that do not rest are visited."""

    def __init__(self, tracked: Mapping[int, Tracked]) -> None:
        self._tracked = tracked
        self._notices = WriteNotices()
        self._watches: dict[int, int] = {}
        self._ticks = 0
        self._before_usec = self._now_usec = 0
        self._trouble = ""

    def wake(self) -> None:
        """Find out who is to be visited in this tick, and whose limits may be others."""
        self._before_usec, self._now_usec = self._now_usec, time.monotonic_ns() // 1000
        self._suspect_written()
        ticks = self._ticks
        for key, tracked in self._tracked.items():
            turn = ticks + key
            if turn % WHOLE_EVERY == _WHOLE_TURN:
                tracked.suspect_limits()
            if tracked.resting and (tracked.suspect or not _still(tracked, memory=turn % MEMORY_EVERY == 0)):
                tracked.wake(self._last_look_usec())
        self._ticks += 1

    def settle(self) -> None:
        for tracked in self._tracked.values():
            if not tracked.resting:
                if not tracked.watched:
                    self._watch(tracked)
                tracked.resting = tracked.settled

    def close(self) -> None:
        self._notices.close()

    def _suspect_written(self) -> None:
        written = self._notices.written()
        if written is None:
            keys = set(self._tracked)
        else:
            keys = {self._watches[number] for number in written if number in self._watches}
        for key in keys:
            if (tracked := self._tracked.get(key)) is not None:
                tracked.suspect_limits()
        if len(self._watches) > 4 * len(self._tracked):
            self._tidy()

    def _watch(self, tracked: Tracked) -> None:
        """Without notices it never rests, and all of it is read in every tick."""
        numbers = [self._notices.watch(directory) for directory in tracked.cgroup.directories]
        self._watches |= {number: tracked.key for number in numbers if number is not None}
        tracked.watched = None not in numbers
        tracked.suspect_limits()  # written since the last look, perhaps
        if not tracked.watched and self._notices.trouble != self._trouble:
            self._trouble = self._notices.trouble
            log.warning("limits are read in every tick: no inotify", reason=self._trouble)

    def _tidy(self) -> None:
        for number, key in list(self._watches.items()):
            if key not in self._tracked:
                del self._watches[number]
                self._notices.unwatch(number)

    def _last_look_usec(self) -> int:
        """When the container whose turn it is now was looked at in the tick before."""
        return self._before_usec + time.monotonic_ns() // 1000 - self._now_usec


def _still(tracked: Tracked, *, memory: bool) -> bool:
    try:
        if not tracked.cgroup.still():
            return False
        return not memory or tracked.memory is None or tracked.memory.group.still()
    except (EscraError, OSError):
        return False  # the visit finds out what it is
