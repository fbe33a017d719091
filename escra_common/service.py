"""Living under systemd: what the manager hands a service, and what it wants to hear from it.

Everything here works the same without systemd: nothing is sent, nothing is inherited.
"""

import asyncio
import faulthandler
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from escra_common.errors import ConfigError

# sd_listen_fds(3): inherited sockets start after stdin, stdout and stderr.
_FIRST_LISTEN_FD = 3


# ---- what systemd wants to hear ----------------------------------------------------


def notify(*assignments: str, wait_s: float = 0.0) -> bool:
    """Send ``KEY=value`` assignments to the service manager; true when they went out.

    Never fails and, unless ``wait_s`` says so, never waits: a manager that is busy or gone
    must not stop the caller's loop.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(wait_s)
            # Connected, so that a timeout waits for room in the manager's queue, not in ours.
            manager.connect(address)
            manager.send("\n".join(assignments).encode())
    except OSError:
        return False
    return True


def ready() -> None:
    """The service does what it promises; also the end of a reload."""
    notify("READY=1", wait_s=1.0)


def stopping() -> None:
    """Send once: from systemd 259 on it cannot be taken back."""
    notify("STOPPING=1", wait_s=1.0)


def reloading() -> None:
    """The configuration is being read again; ``ready()`` must follow, whatever came of it."""
    # Without MONOTONIC_USEC newer managers wait for ever.
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", wait_s=1.0)


class Status:
    """The line that ``systemctl status`` shows; sent when it changes."""

    def __init__(self) -> None:
        self._sent = ""

    def __call__(self, text: str) -> None:
        line = " ".join(text.split())  # a newline would start another assignment
        if line != self._sent and notify(f"STATUS={line}"):
            self._sent = line


# A process has one status line.
status = Status()


class Watchdog:
    """Tells systemd that the work loop still completes its cycles.

    Ping from that loop, never from a task of its own: such a task proves only that timers
    work.  Does nothing when the unit has no ``WatchdogSec=``.
    """

    def __init__(self) -> None:
        limit = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_s = int(limit) / 2e6 if ours and limit.isdecimal() else 0.0
        self._due = float("-inf")

    def ping(self, now: float) -> None:
        """Call after each completed cycle; ``now`` is any monotonic clock in seconds."""
        if self._every_s > 0 and now >= self._due and notify("WATCHDOG=1"):
            self._due = now + self._every_s


# ---- what systemd hands us ---------------------------------------------------------


def listen_sockets() -> dict[str, socket.socket]:
    """The listening sockets that were passed to this process, by ``FileDescriptorName=``.

    Call once: each call would wrap the same descriptors again.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(
            f"systemd passed {count} sockets named {':'.join(names)!r}; "
            "give each .socket unit its own FileDescriptorName="
        )
    sockets = {}
    for fd, name in enumerate(names, _FIRST_LISTEN_FD):
        os.set_inheritable(fd, False)
        sockets[name] = socket.socket(fileno=fd)
    return sockets


def credential(name: str) -> Path | None:
    """The file that ``LoadCredential=NAME:...`` made readable for this service alone."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, name) if directory else None
    return path if path is not None and path.is_file() else None


# ---- signals and the event loop ----------------------------------------------------


class Shutdown(Exception):
    """Raised by one task so that the TaskGroup cancels the others; the text is the signal's name."""


async def on_signals(reload: Callable[[], None]) -> NoReturn:
    """A daemon's signal task: SIGTERM and SIGINT raise Shutdown, SIGHUP calls ``reload``.

    ``reload`` reports its own errors; the manager hears RELOADING before and READY after it.
    The first signal to end sends STOPPING.  From then on a second Ctrl-C kills the process at
    once, and further SIGTERM and SIGHUP change nothing: limits are being put back.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(number: signal.Signals) -> None:
        if ended.done():
            return
        ended.set_result(number.name)
        loop.remove_signal_handler(signal.SIGINT)
        # Not KeyboardInterrupt: that could be swallowed by the clean-up it wants to cut short.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stopping()

    def hang_up() -> None:
        if ended.done():
            return
        reloading()
        try:
            reload()
        finally:
            ready()

    loop.add_signal_handler(signal.SIGTERM, end, signal.SIGTERM)
    loop.add_signal_handler(signal.SIGINT, end, signal.SIGINT)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    # The handlers stay until the loop is closed, which removes them.
    raise Shutdown(await ended)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a daemon's main coroutine on uvloop until it returns or is shut down by a signal."""
    # The watchdog kills with SIGABRT: every thread's stack then goes to the journal.
    faulthandler.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(main())
        except* Shutdown:
            pass
