"""Notice from the kernel that use passes a mark on its way to the limit (cgroup v1).

On v2 memory.high is such a mark.  Without one the first notice is the limit itself, where a system call that
needs memory fails (MemoryFiles.arm).
"""

import asyncio
import contextlib
import errno
import functools
import os
import select
from collections.abc import Collection, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

# A new mark waits for the kernel's readers (synchronize_rcu; 16 ms here), so it is set aside from the loop,
# and several wait no longer than one.
THREADS = 2
# So near to the limit a mark comes no sooner than the limit.
LEAST_ROOM_BYTES = 1 << 20
# A kernel that has no marks (one for real time), or not for us, has none for any container.
NEVER = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Mark:
    fd: int
    at_bytes: int
    limit_bytes: int


class Marks:
    """One mark per container, by its key.  Notices come to ``epoll``; ``keys`` says whose a descriptor is.

    Who is not noticed is seen in the next tick: nothing here is worth an error.
    """

    def __init__(self, epoll: select.epoll, keys: MutableMapping[int, int]) -> None:
        self._epoll = epoll
        self._keys = keys
        self._marks: dict[int, Mark] = {}
        self._setting: set[int] = set()
        self._threads = ThreadPoolExecutor(THREADS, "marks")
        self._open = True

    def see_to(self, key: int, directory: str, used_bytes: int, limit_bytes: int) -> None:
        """A mark halfway between use and limit, for every limit, and again when use has passed it.

        So it is far enough from the limit to be of help, and a container that comes near the limit slowly is
        not noticed more than a few times.
        """
        mark = self._marks.get(key)
        if mark is not None and mark.limit_bytes == limit_bytes and used_bytes < mark.at_bytes:
            return
        at_bytes = (used_bytes + limit_bytes) // 2
        if not self._open or key in self._setting or limit_bytes - at_bytes < LEAST_ROOM_BYTES:
            return
        self._setting.add(key)
        loop = asyncio.get_running_loop()
        done = functools.partial(self._set, key, at_bytes, limit_bytes)
        loop.run_in_executor(self._threads, set_mark, directory, at_bytes).add_done_callback(done)

    def keep(self, keys: Collection[int]) -> None:
        """The others ended, or were given back."""
        for key in self._marks.keys() - keys:
            self._drop(self._marks.pop(key))

    def close(self) -> None:
        self._open = False
        self._threads.shutdown(cancel_futures=True)
        self.keep(())

    def _set(self, key: int, at_bytes: int, limit_bytes: int, future: "asyncio.Future[int]") -> None:
        self._setting.discard(key)
        if future.cancelled():
            return
        try:
            fd = future.result()
        except OSError as error:  # mostly, the container ended
            if self._open and error.errno in NEVER:
                self._open = False
                log.info("no notice of use below the limit: it is seen in ticks", reason=error.strerror)
            return
        if not self._open:
            os.close(fd)
            return
        if (old := self._marks.pop(key, None)) is not None:
            self._drop(old)
        self._marks[key], self._keys[fd] = Mark(fd, at_bytes, limit_bytes), key
        # With edges nothing has to be read for the next notice.
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def _drop(self, mark: Mark) -> None:
        """The kernel forgets a mark when its eventfd is closed."""
        self._keys.pop(mark.fd, None)
        with contextlib.suppress(OSError):  # the notice that its cgroup was removed has taken it out
            self._epoll.unregister(mark.fd)
        os.close(mark.fd)


def set_mark(directory: str, at_bytes: int) -> int:
    """The eventfd that tells when use passes it, either way.  Raises OSError."""
    use = os.open(f"{directory}/memory.usage_in_bytes", os.O_RDONLY | os.O_CLOEXEC)
    try:
        control = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                os.write(control, f"{event} {use} {at_bytes}".encode())
            except BaseException:
                os.close(event)
                raise
            return event
        finally:
            os.close(control)
    finally:
        os.close(use)
