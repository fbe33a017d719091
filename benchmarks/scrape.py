"""What a scrape of Prometheus costs the controller's loop, with a thousand containers.

One process, one event loop: its 100 ms ticks, and now and then a page.  Reported is how late the ticks begin
without scrapes (the floor) and with one going on at nearly all times, far more often than anybody asks.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.numbers import percentile, summary_ms
from escra_common.messages import (
    Container,
    ContainerMemory,
    CpuLimit,
    MemoryLevel,
    MemoryLimit,
    Sample,
)
from escra_common.session import hello
from escra_controller.engine import Engine
from escra_controller.events import AgentJoined, AppsConfigured, AppSpec, MemoryArrived, SamplesArrived
from escra_controller.metrics.gathering import gather
from escra_controller.metrics.page import Page
from escra_controller.metrics.series import Ticks
from escra_controller.metrics.tally import Tally

HOSTS = 10
TICK_S = 0.1
PAUSE_S = 0.05
CORE = CpuLimit(100_000, 100_000)
MIB = 1 << 20


def engine(containers: int) -> Engine:
    """One application on ten hosts, everybody with a limit and some use."""
    made = Engine()
    made.handle(AppsConfigured([AppSpec("shop", containers * 2000, containers << 30)]), 0.0)
    for number in range(HOSTS):
        host, keys = f"host-{number}", range(number * 100_000 + 1, number * 100_000 + containers // HOSTS + 1)
        listed = [_container(key) for key in keys]
        made.handle(AgentJoined(hello("agent", host, cpus=64, memory_bytes=1 << 40), listed), 1.0)
        for second in (1, 2):
            usage = [Sample(key, second * 100_000, second * 20_000, second, 0, 0, 0, 0) for key in keys]
            made.handle(SamplesArrived(host, usage), second + 1.0)
        made.handle(MemoryArrived(host, [MemoryLevel(key, 64 * MIB, 256 * MIB) for key in keys]), 3.0)
    return made


def _container(key: int) -> Container:
    limit = MemoryLimit(256 * MIB)
    memory = ContainerMemory(limit, limit, needed_bytes=64 * MIB)
    return Container(
        key, f"docker:{key:064}", f"web-{key}", "shop", f"/docker/{key}", "auto", CORE, CORE, memory=memory
    )


async def _ticks(seconds: float) -> list[float]:
    """How late each of them began."""
    late, start = [], time.monotonic()
    for number in range(1, round(seconds / TICK_S)):
        deadline = start + number * TICK_S
        await asyncio.sleep(max(0.0, deadline - time.monotonic()))
        late.append(max(0.0, time.monotonic() - deadline))
    return late


async def _scrapes(page: Page, took: list[float], sizes: list[int]) -> None:
    while True:
        began = time.monotonic()
        sizes.append(len(await page.read(fresh_s=0.0)))
        took.append(time.monotonic() - began)
        await asyncio.sleep(PAUSE_S)


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    containers, seconds = (200, 2.0) if quick else (1000, 20.0)
    subject, tally = engine(containers), Tally()
    page = Page(lambda: gather(subject, tally, Ticks("host-0", 1, 0), 4.0, time.time()))

    async def main() -> tuple[list[float], list[float], list[float], list[int]]:
        say(f"{seconds:g} s without scrapes")
        alone = await _ticks(seconds)
        say(f"{seconds:g} s with scrapes of {containers} containers")
        took: list[float] = []
        sizes: list[int] = []
        reader = asyncio.create_task(_scrapes(page, took, sizes))
        beside = await _ticks(seconds)
        reader.cancel()
        return alone, beside, took, sizes

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        alone, beside, took, sizes = runner.run(main())
    return {
        "containers": containers,
        "page_bytes": sizes[-1],
        "scrapes": len(took),
        "scrape_ms": summary_ms(took),
        "tick_late_alone_ms": summary_ms(alone),
        "tick_late_beside_scrapes_ms": summary_ms(beside),
        "added_p99_ms": round(1000 * (percentile(beside, 99) - percentile(alone, 99)), 2),
    }
