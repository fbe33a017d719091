"""The page that Prometheus reads, in its text format.

A page of a thousand containers is some ten thousand lines and takes longer to write than a tick may be
late: so it is written in slices, and the loop does what else there is to do in between.
"""

import asyncio
import os
import resource
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import prometheus_client
from prometheus_client import Histogram, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from escra_controller.metrics.series import Family, counter, gauge

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# About a millisecond of work.
SLICE = 50
# The second reader within this time gets the first one's page: many readers cost what one does.
FRESH_S = 0.5
# In seconds; a decision should take far less than the 100 ms of a tick.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)

# Steps of work that give the loop its turn after each; the last of them have the families.
Gather = Callable[[], Iterator[Iterable[Family]]]


class One(Collector):
    """What the library writes out: here always a single metric."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class Page:
    """``gather`` yields families, with pauses between its steps.  One page is written at a time."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._writing = asyncio.Lock()
        self._last = b""
        self._at = float("-inf")
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.decisions = Histogram(
            "escra_decision_seconds",
            "How long the engine thought about one event.",
            buckets=BUCKETS,
            registry=None,
        )

    async def read(self, fresh_s: float = FRESH_S) -> bytes:
        """The page, or the one of less than ``fresh_s`` ago."""
        loop = asyncio.get_running_loop()
        async with self._writing:
            if loop.time() - self._at > fresh_s:
                self._last = await self._write()
                self._at = loop.time()
            return self._last

    async def _write(self) -> bytes:
        parts = [generate_latest(One(*self.decisions.collect()))]
        for step in self._gather():
            for family in step:
                for part in slices(family):
                    parts.append(part)
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        return b"".join(parts)


def slices(family: Family, most: int = SLICE) -> Iterator[bytes]:
    """The family's text in parts of at most so many samples; only the first has the header."""
    labels = family.labels
    samples = (
        Sample(family.name, dict(zip(labels, values, strict=True)), value)
        for values, value in family.samples.items()
    )
    first = True
    while (part := list(islice(samples, most))) or first:
        # The library adds to a counter's name what ours has already.
        metric = Metric(family.name.removesuffix("_total"), family.text, family.kind)
        metric.samples = part
        text = generate_latest(One(metric))
        yield text if first else text.split(b"\n", 2)[2]
        first = False


def process(started_at: float) -> list[Family]:
    """This process under the names that every dashboard knows; ``started_at`` in unix seconds.

    The library's own collector needs /proc/stat, which the unit hides.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    families = [
        gauge("process_start_time_seconds", "When it started.", (), {(): started_at}),
        counter("process_cpu_seconds_total", "CPU time used.", (), {(): used.ru_utime + used.ru_stime}),
    ]
    try:
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        resident = pages * resource.getpagesize()
        open_fds, most = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except OSError:
        return families
    return [
        *families,
        gauge("process_resident_memory_bytes", "Memory in use.", (), {(): resident}),
        gauge("process_open_fds", "Open file descriptors.", (), {(): open_fds}),
        gauge("process_max_fds", "How many it may have open.", (), {(): most}),
    ]
