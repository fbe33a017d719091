"""Whether what people are told is what the kernel holds."""

import time
from typing import Any

from benchmarks.kernelfiles import Limits

# An order that nobody answers for so long explains nothing: agents write within a period or two.
ORDER_S = 1.0
# A period and what a busy machine adds; less than the looks take after which all is well (world.py).
REST_S = 0.2


class Audit:
    """Whether the ledger explains what the kernel holds, container by container.

    Limits move all the time, so there is hardly a moment with nothing under way.  Strictly then: the kernel's
    limit, read before and after the controller is asked, is at one of these what is counted, with headroom or
    without, to the millicore and page; or the kernel holds less than that, and an order younger than
    ``ORDER_S`` is under way for that container, or it has not held just this for longer than ``REST_S``: what
    a new quota leaves of a period is in force until its end (planner.py).
    """

    def __init__(self) -> None:
        self._orders: dict[tuple[str, str], tuple[float, float]] = {}
        self._less: dict[tuple[str, str], tuple[float, float]] = {}

    def wrong(self, row: dict[str, Any], kernel: Limits) -> str:
        """What is not explained, or ""."""
        cpu = self._odd(row, "cpu", "cores", kernel.cpu_cores, 0.001)
        return cpu or self._odd(row, "memory", "bytes", kernel.memory_bytes, 4096)

    def _odd(self, row: dict[str, Any], resource: str, unit: str, kernel: float, step: float) -> str:
        counted, ordered = row[resource][f"counted_{unit}"], row[resource][f"ordered_{unit}"]
        headroom = row[resource][f"headroom_{unit}"]
        key, now = (row["name"], resource), time.monotonic()
        if ordered is None:
            self._orders.pop(key, None)
        elif self._orders.get(key, (None, now))[0] != ordered:
            self._orders[key] = ordered, now
        age_s = now - self._orders.get(key, (0, now))[1]
        since, held = self._less.pop(key, (now, kernel))
        if min(abs(kernel - counted), abs(kernel - (counted - headroom))) <= 1.001 * step:
            return ""
        if ordered is not None and kernel < counted and age_s < ORDER_S:
            return ""
        if resource == "cpu" and kernel < counted:
            since = since if held == kernel else now
            self._less[key] = since, kernel
            if now - since < REST_S:
                return ""
        under_way = "nothing is under way" if ordered is None else f"{ordered} ordered {age_s:.2f} s ago"
        return f"{row['name']}: the kernel holds {kernel:.3f} {unit}, {counted} are counted, {under_way}"
