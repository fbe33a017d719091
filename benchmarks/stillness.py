"""When did the machine not run?  The guest of a busy host is stopped for some ms, between two instructions.

Measured here: both processors of a guest stood still for 13 ms, and the kernel charged 13.1 of them to the
group that was running.  No limit can prevent that, so whoever judges use must know of it.  On each processor
something of realtime priority sleeps for 1 ms at a time: nothing but the kernel goes before it, so when it
wakes late, the processor did not run (or the kernel let nobody in).

    python -m benchmarks.stillness PROCESSOR

prints the end and the length of each such time, in us of CLOCK_MONOTONIC, until it is ended.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType

STEP_S = 0.001
# From this on it is told.
LEAST_USEC = 1000
# Nobody looks back further.
KEPT_USEC = 5_000_000
ROOT = Path(__file__).parents[1]


class Stillness:
    """Listens while in its block.  Nothing is known, and nothing told, where realtime is not allowed."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._rest: dict[int, bytes] = {}
        # End and length, of any processor; about in their order.
        self._times: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> "Stillness":
        for processor in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-m", "benchmarks.stillness", str(processor)]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            self._processes.append(process)
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            self._rest[process.stdout.fileno()] = b""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._rest.clear()

    def usec(self, since_usec: int, until_usec: int) -> int:
        """How long processors stood still in that time, summed over them; of what is known by now."""
        with self._lock:
            self._listen()
            return sum(
                max(0, min(end, until_usec) - max(end - length, since_usec)) for end, length in self._times
            )

    def _listen(self) -> None:
        long_ago_usec = time.monotonic_ns() // 1000 - KEPT_USEC
        while self._times and self._times[0][0] < long_ago_usec:
            self._times.popleft()
        for fd, rest in self._rest.items():
            try:
                *lines, self._rest[fd] = (rest + os.read(fd, 1 << 16)).split(b"\n")
            except BlockingIOError:
                continue
            for line in lines:
                end, length = line.split()
                self._times.append((int(end), int(length)))


def main(processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))
    except PermissionError:
        return
    while True:
        began = time.monotonic_ns()
        time.sleep(STEP_S)
        ended = time.monotonic_ns()
        late_usec = (ended - began) // 1000 - int(STEP_S * 1e6)
        if late_usec >= LEAST_USEC:
            os.write(sys.stdout.fileno(), b"%d %d\n" % (ended // 1000, late_usec))


if __name__ == "__main__":
    main(int(sys.argv[1]))
