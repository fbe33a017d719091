"""One service of an application, in a container of its own.

    python3 -m benchmarks.compare.inside.service NAME

A request brings the part of the call tree that is this service's.  It makes the calls, to services and to
databases, and then its own work of what they answered.  What is past its deadline is not worked for.
"""

import asyncio
import gc
import json
import sys
import time
from typing import Any

import uvloop
from aiohttp import web

from benchmarks.compare.httpwire import PORT, HttpCaller
from benchmarks.compare.inside.stores import STORES, Row
from benchmarks.compare.inside.work import Answer, work_of


class Service:
    def __init__(self, name: str) -> None:
        self._work = work_of(name)
        self._caller = HttpCaller()
        self._stores = {store: made(name) for store, made in STORES.items()}

    async def answer(self, request: web.Request) -> web.Response:
        deadline, (_, units, hold_kib, stages) = await request.json()
        answer = await self._run(deadline, units, hold_kib, stages)
        if answer is None:
            return web.Response(status=504)
        content_type, body = answer
        return web.Response(body=body, content_type=content_type)

    async def _run(self, deadline: float, units: int, hold_kib: int, stages: list[Any]) -> Answer | None:
        held = b"\xff" * (hold_kib << 10)
        rows: list[Row] = []
        for stage in stages:
            for answered in await asyncio.gather(*(self._call(deadline, tree) for tree in stage)):
                if answered is None:
                    return None
                rows += answered
        if time.monotonic() > deadline:
            return None
        answer = self._work(units, rows)
        del held
        return answer

    async def _call(self, deadline: float, tree: Any) -> list[Row] | None:
        name, units = tree[:2]
        if name in self._stores:
            return await self._stores[name].ask(units) if time.monotonic() <= deadline else None
        answered = await self._caller.ask(f"{name}:{PORT}", deadline, tree)
        return None if answered is None else json.loads(answered[1])


async def application(name: str) -> web.Application:
    service = Service(name)
    made = web.Application()
    made.router.add_post(f"/{name}", service.answer)
    gc.freeze()
    return made


if __name__ == "__main__":
    uvloop.install()
    web.run_app(application(sys.argv[1]), port=PORT, access_log=None, print=None)
