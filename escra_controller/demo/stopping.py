"""Ends the demo where it is safe to end: a signal raises no exception in the middle of a clean-up."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody asked for the end; ``status`` is the exit status that says so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


class Stop:
    def __init__(self) -> None:
        self._signum: int | None = None

    def request(self, signum: int, frame: FrameType | None = None) -> None:
        self._signum = signum

    def check(self) -> None:
        """Raises Stopped once a signal has come.  Call it at least every tenth of a second."""
        if self._signum is not None:
            raise Stopped(self._signum)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    stop = Stop()
    before = {signum: signal.signal(signum, stop.request) for signum in _SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
