"""One service of an application, a process of its own.

    python -m benchmarks.compare.service NAME PORTS

PORTS is a JSON object with the port of every service.  A request brings the part of the call tree that
is this service's: so much work, then calls to others.  What is past its deadline is not worked for.
"""

import asyncio
import gc
import json
import sys
import time
import zlib

import uvloop

from benchmarks.compare.wire import Caller, Respond, Served, Tree

# One unit is one page rendered, serialised and compressed: about a fifth of a millisecond of CPU.
_ROWS = [{"id": n, "name": f"item {n}", "price": n * 1.19, "tags": ["a", "b", str(n % 7)]} for n in range(12)]

# What it keeps in memory whether or not there are requests.
CACHE_MIB = 48


def work(units: int) -> int:
    size = 0
    for unit in range(units):
        page = json.dumps([row | {"unit": unit} for row in _ROWS])
        size += len(zlib.compress(page.encode(), 5)) + len(json.loads(page))
    return size


class Service:
    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self._callers: dict[str, Caller] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._cache = b"\xff" * (CACHE_MIB << 20)

    def serve(self, request: tuple[int, float, Tree], respond: Respond) -> None:
        task = asyncio.ensure_future(self._answer(request, respond))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, request: tuple[int, float, Tree], respond: Respond) -> None:
        number, deadline, (_, units, hold_kib, stages) = request
        respond([number, await self._run(deadline, units, hold_kib, stages)])

    async def _run(self, deadline: float, units: int, hold_kib: int, stages: list[list[Tree]]) -> bool:
        if time.monotonic() > deadline:
            return False
        held = b"\xff" * (hold_kib << 10)
        work(units)
        for stage in stages:
            done = await asyncio.gather(*(self._call(deadline, tree) for tree in stage))
            if not all(done):
                return False
        return len(held) > 0 or hold_kib == 0

    async def _call(self, deadline: float, tree: Tree) -> bool:
        name = tree[0]
        if name not in self._callers:
            self._callers[name] = Caller(self._ports[name])
        return await self._callers[name].call(deadline, tree)


async def main(name: str, ports: dict[str, int]) -> None:
    service = Service(ports)
    work(1)
    gc.freeze()
    server = await asyncio.get_running_loop().create_server(
        lambda: Served(service.serve), "127.0.0.1", ports[name]
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], json.loads(sys.argv[2])))
