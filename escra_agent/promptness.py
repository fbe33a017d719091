"""The agent goes before those it manages: realtime scheduling, and a way out of it.

Where all processors are busy a task that wakes waits for others whatever its nice value, for the shares of
cgroups come first: now and then 0.1 s, and 0.46 s at worst, where a realtime task waited 2 ms (beside two
containers and a hog on two processors).  In that time a container meets a memory limit, or loses periods.

A realtime task that does not sleep keeps a processor to itself.  The kernel tells it when it has run for long
(RLIMIT_RTTIME), and then the agent is scheduled as anybody else for a while.

Its threads go with it: one that held Python's lock while others have their turn would hold up all.
"""

import asyncio
import contextlib
import os
import resource
import signal

import structlog

log = structlog.get_logger()

# The lowest: nothing of the kernel's own, and no other realtime program, waits for it.
PRIORITY = 1
# Without a sleep in between.  A tick over a thousand containers takes a tenth of it.
MOST_USEC = 300_000
STEP_BACK_S = 60.0


class Promptness:
    """``wanted`` is false where people want it to be scheduled as anybody else."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """From now on this process, and what it starts; in the running loop.

        Where it is not allowed all goes on without it.
        """
        if not self._wanted:
            return
        asyncio.get_running_loop().add_signal_handler(signal.SIGXCPU, self._step_back)
        try:
            _, most = resource.getrlimit(resource.RLIMIT_RTTIME)
            resource.setrlimit(resource.RLIMIT_RTTIME, (MOST_USEC, most))
            _schedule(os.SCHED_RR, PRIORITY)
        except (OSError, ValueError) as error:
            self._wanted = False
            log.info("no realtime scheduling: late where all processors are busy", reason=str(error))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _step_back(self) -> None:
        _schedule(os.SCHED_OTHER, 0)
        log.warning(
            "busy without a pause; scheduled as anybody else for a while",
            reason=f"ran for more than {MOST_USEC / 1e6:g} s on end",
        )
        self._timer = asyncio.get_running_loop().call_later(STEP_BACK_S, self.begin)


def _schedule(policy: int, priority: int) -> None:
    """All threads that there are; what they start is scheduled as they are.  Nice values stay."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setscheduler(int(thread), policy, os.sched_param(priority))
