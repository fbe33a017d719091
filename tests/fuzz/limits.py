"""What one input may cost, measured so that a busy machine is not taken for a fault of the code."""

import os
import resource
import time
from collections.abc import Callable

MAX_SECONDS = 0.1
MAX_BYTES = 64 << 20
# Somebody else's load delays one run of an input, hardly this many in a row.
_REPEATS = 4
_SUSPICIOUS_S = 0.005
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_LOOK_EVERY = 256

Run = Callable[[bytes], None]


class TooDear(AssertionError):
    """An input took too long or too much memory."""


class Meter:
    """Runs inputs one by one and raises TooDear for the one that passed a limit.

    Memory is the process's high-water mark over what it held shortly before: a peak counts also when
    all of it was freed at once.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.inputs = 0
        self.slowest_s = 0.0
        self._first = self._held = 0
        self._peak = 0

    def __call__(self, data: bytes) -> None:
        if self.inputs % _LOOK_EVERY == 0:
            self._held = resident_bytes()
        if self.inputs == 0:
            self._first, self._peak = self._held, peak_bytes()
        self.inputs += 1
        seconds = self._timed(data)
        self._check_memory()
        if seconds > max(self.slowest_s, _SUSPICIOUS_S):
            seconds = min(seconds, *(self._timed_alone(data) for _ in range(_REPEATS)))
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > MAX_SECONDS:
            raise TooDear(
                f"{seconds * 1e3:.0f} ms, each of {_REPEATS + 1} times; at most {MAX_SECONDS * 1e3:.0f}"
            )

    def _timed(self, data: bytes) -> float:
        began = time.perf_counter()
        self._run(data)
        return time.perf_counter() - began

    def _timed_alone(self, data: bytes) -> float:
        """Less the time in which others had the processor: realtime tasks may take it for long."""
        before_ns = _waited_ns()
        return self._timed(data) - (_waited_ns() - before_ns) / 1e9

    def _check_memory(self) -> None:
        peak = peak_bytes()
        if peak > self._peak:
            self._peak = peak
            if peak - self._held > MAX_BYTES:
                raise TooDear(f"{peak - self._held >> 20} MiB of memory; at most {MAX_BYTES >> 20}")

    @property
    def grown_bytes(self) -> int:
        """The highest the process ever stood above where it began."""
        return max(0, self._peak - self._first)


def _waited_ns() -> int:
    """For a processor, while runnable; 0 on kernels that do not say."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except FileNotFoundError:
        return 0


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
