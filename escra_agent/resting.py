"""Who rests: a container in which nothing moves is looked at through one file, until something does.

Most containers of a host do nothing most of the time.  While the CPU time used stands still, no counter moves
and no task of the container allocates; and of a limit that somebody writes the kernel gives notice.
"""

import time
from collections.abc import Mapping

import structlog

from escra_agent.directory import read
from escra_agent.notices import WriteNotices
from escra_agent.sampler import REFRESH_USEC
from escra_agent.tracked import Tracked
from escra_common.errors import EscraError

log = structlog.get_logger()

# Ticks between two looks at the memory of one that rests: a socket may take some without a task.
MEMORY_EVERY = 10
# And between two looks at all of everybody, come what may.
WHOLE_EVERY = 200


class Resting:
    """``wake`` comes first in a tick, ``settle`` last; in between those that do not rest are visited."""

    def __init__(self, tracked: Mapping[int, Tracked]) -> None:
        self._tracked = tracked
        # The file to look at, and what it says for as long as nothing moves.
        self._asleep: list[tuple[int, bytes, Tracked]] = []
        self._notices = WriteNotices()
        self._watches: dict[int, int] = {}
        self._ticks = 0
        self._before_usec = self._now_usec = 0
        self._trouble = ""

    def wake(self) -> None:
        """Find out who is to be visited in this tick, and whose limits may be others."""
        self._before_usec, self._now_usec = self._now_usec, time.monotonic_ns() // 1000
        self._ticks += 1
        self._suspect()
        if self._now_usec // REFRESH_USEC != self._before_usec // REFRESH_USEC:
            self._let_tell()
        woken = False
        for fd, text, tracked in self._asleep:
            try:
                if tracked.resting and read(fd, len(text) + 1) == text:
                    continue
            except OSError:
                pass  # the visit finds out what it is
            woken, tracked.resting = True, False
            # Everything was as before until the last look at it.
            looked_usec = self._before_usec + time.monotonic_ns() // 1000 - self._now_usec
            tracked.sampler.rested(looked_usec)
        if woken:
            self._asleep = [sleeper for sleeper in self._asleep if sleeper[2].resting]

    def settle(self) -> None:
        for tracked in self._tracked.values():
            if tracked.resting:
                continue
            if not tracked.watched:
                self._watch(tracked)
            if tracked.settled:
                tracked.resting = True
                self._asleep.append((*tracked.cgroup.sign, tracked))

    def close(self) -> None:
        self._notices.close()

    def _suspect(self) -> None:
        """Those whose limits were written, and in turns everybody."""
        written = self._notices.written()
        if written is None:
            suspects = list(self._tracked.values())
        else:
            keys = {self._watches.get(number, 0) for number in written}
            suspects = [tracked for key in keys if (tracked := self._tracked.get(key)) is not None]
        for tracked in suspects:
            tracked.suspect_limits()
        for tracked in list(self._tracked.values())[self._ticks % WHOLE_EVERY :: WHOLE_EVERY]:
            tracked.look_at_all()
        for _, _, tracked in self._asleep[self._ticks % MEMORY_EVERY :: MEMORY_EVERY]:
            tracked.resting = tracked.resting and _memory_still(tracked)
        if len(self._watches) > 4 * len(self._tracked):
            self._tidy()

    def _let_tell(self) -> None:
        """Who did next to nothing since the last time, or has been idle since, has yet to say so."""
        for _, _, tracked in self._asleep:
            tracked.resting = tracked.resting and tracked.sampler.silent

    def _watch(self, tracked: Tracked) -> None:
        """Without notices it never rests, and all of it is read in every tick."""
        numbers = [self._notices.watch(directory) for directory in tracked.cgroup.directories]
        self._watches |= {number: tracked.key for number in numbers if number is not None}
        tracked.watched = None not in numbers
        tracked.look_at_all()  # written since the last look, perhaps
        if not tracked.watched and self._notices.trouble != self._trouble:
            self._trouble = self._notices.trouble
            log.warning("limits are read in every tick: no inotify", reason=self._trouble)

    def _tidy(self) -> None:
        for number, key in list(self._watches.items()):
            if key not in self._tracked:
                del self._watches[number]
                self._notices.unwatch(number)


def _memory_still(tracked: Tracked) -> bool:
    try:
        return tracked.memory is None or tracked.memory.group.still()
    except (EscraError, OSError):
        return False
