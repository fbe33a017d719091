"""Virtual time, and an asyncio loop for each process that lives in it.

All processes of a simulation take turns in one thread: what is due first runs first, and when nothing
is ready time jumps to the next timer.  So a run is a function of its seed, and an hour costs seconds.

A process is killed by never running it again (no ``finally`` of its runs, as after ``kill -9``), and
stopped (SIGSTOP) by keeping what is due for it until it goes on.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any

BURIAL_ROUNDS = 50


@dataclass(slots=True)
class Clock:
    """A host's clocks: ``rate`` and ``offset`` of the monotonic one against true time, in seconds."""

    rate: float = 1.0
    offset: float = 0.0
    wall: float = 1.8e9

    def monotonic(self, true: float) -> float:
        return self.offset + self.rate * true


class Clockwork:
    """``now`` is true time in seconds.  ``running`` is the process whose code runs, if one does."""

    def __init__(self, rng: Random) -> None:
        self.now = 0.0
        self.rng = rng
        self.running: Process | None = None
        self.ended = False
        self.stop_early: Callable[[], bool] = lambda: False
        self._order = 0
        self._heap: list[tuple[float, int, asyncio.Handle, Process | None]] = []
        self._ready: deque[tuple[asyncio.Handle, Process | None]] = deque()

    def at(self, time: float, call: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Something that happens outside of all processes: in the network, in a kernel."""
        return self.schedule(max(time, self.now), asyncio.Handle(call, args, _OUTSIDE), None)

    def after(self, delay: float, call: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self.at(self.now + delay, call, *args)

    def schedule(self, time: float, handle: asyncio.Handle, process: "Process | None") -> asyncio.Handle:
        self._order += 1
        heapq.heappush(self._heap, (time, self._order, handle, process))
        return handle

    def soon(self, handle: asyncio.Handle, process: "Process | None") -> asyncio.Handle:
        self._ready.append((handle, process))
        return handle

    def run(self, until: float) -> None:
        """Let everything happen that is due by then, unless ``stop_early`` says that it is enough."""
        ready, heap = self._ready, self._heap
        try:
            while not self.stop_early():
                if ready:
                    self._take(*ready.popleft())
                elif heap and heap[0][0] <= until:
                    self.now, _, handle, process = heapq.heappop(heap)
                    self._take(handle, process)
                else:
                    self.now = max(self.now, until)
                    return
        finally:
            self._enter(None)

    def bury(self, processes: "list[Process]") -> None:
        """Let the coroutines of all processes end, so that nothing is left for the garbage collector.

        The simulated hosts must not listen to anybody any more (``ended``).
        """
        self.ended = True
        for process in processes:
            process.raise_dead()
        for _ in range(BURIAL_ROUNDS):
            self._heap.clear()  # whatever waits in its `finally` is cancelled there, too
            living = [(process, task) for process in processes for task in process.tasks if not task.done()]
            if not living:
                break
            for process, task in living:
                self._enter(process)
                task.cancel()
            for _ in range(len(self._ready) + 8 * len(living)):
                if self._ready:
                    self._take(*self._ready.popleft())
        self._ready.clear()
        self._enter(None)

    def _take(self, handle: asyncio.Handle, process: "Process | None") -> None:
        if handle.cancelled():
            return
        if process is not None:
            if process.dead:
                return
            if process.stopped:
                process.held.append(handle)
                return
        if process is not self.running:
            self._enter(process)
        handle._run()

    def _enter(self, process: "Process | None") -> None:
        self.running = process
        asyncio._set_running_loop(process)


# What asyncio never asks for here need not be there.
_Loop: Any = asyncio.AbstractEventLoop


class Process(_Loop):  # type: ignore[misc]
    """A process of a simulated host is its event loop; threads are work that takes a while.

    ``failures`` collects what no task of its caught.
    """

    def __init__(self, clockwork: Clockwork, name: str, clock: Clock) -> None:
        self.clockwork = clockwork
        self.name = name
        self.clock = clock
        self.dead = self.stopped = False
        self.held: deque[asyncio.Handle] = deque()
        self.failures: list[BaseException] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.readers: dict[int, Callable[[], object]] = {}
        # How long something done in a thread takes, and when each executor is done with what it has.
        self.thread_delay_s: Callable[[], float] = lambda: clockwork.rng.uniform(0.0002, 0.004)
        self._busy_until: dict[int, float] = {}
        self._network: Any = None

    # ---- life ----------------------------------------------------------------------

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Let this happen in the process, as when its kernel has news for it."""
        self.clockwork.soon(asyncio.Handle(call, args, self), self)

    def kill(self) -> None:
        self.dead = True

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        while self.held:
            self.clockwork.soon(self.held.popleft(), self)

    def raise_dead(self) -> None:
        self.dead = self.stopped = False
        self.held.clear()

    # ---- what asyncio asks of a loop -----------------------------------------------

    def time(self) -> float:
        return self.clock.monotonic(self.clockwork.now)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.clockwork.soon(asyncio.Handle(callback, args, self, context), self)

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        due = (when - self.clock.offset) / self.clock.rate
        self.clockwork.schedule(max(due, self.clockwork.now), handle, self)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        self.tasks.append(task)
        if len(self.tasks) > 256:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not self.clockwork.ended:
            self.failures.append(error)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    # ---- what takes a while --------------------------------------------------------

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Done whole, a while later; one after the other within an executor."""
        future, key, now = self.create_future(), id(executor) if executor else 0, self.clockwork.now
        due = max(now, self._busy_until.get(key, 0.0) if key else 0.0) + self.thread_delay_s()
        self._busy_until[key] = due
        job = asyncio.Handle(_work, (future, func, args), self)
        self.clockwork.schedule(due, job, self)
        return future

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.readers[fd] = lambda: callback(*args)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    # ---- the network ---------------------------------------------------------------

    def plug(self, network: Any) -> None:
        self._network = network

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *_: None, sock: tuple[str, int], **__: Any
    ) -> Any:
        """``sock`` is a place in the network: sockets are nothing here."""
        future = self.create_future()
        self._network.dial(self, sock, factory, future)
        return await future

    async def create_server(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int, **_: Any
    ) -> Any:
        return self._network.listen(self, (host, port), factory)


def _work(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:  # as an executor does: it belongs to whoever waits
        future.set_exception(error)
    else:
        future.set_result(result)


class _Outside(_Loop):  # type: ignore[misc]
    """Handles want a loop that hears of exceptions; out here they are the simulator's own faults."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context["exception"]

    def get_debug(self) -> bool:
        return False


_OUTSIDE = _Outside()
