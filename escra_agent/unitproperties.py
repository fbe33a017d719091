"""What the systemd unit of a container should say about its limits, and when.  Pure.

systemd believes that the limits of its units are its own (K17): at each daemon-reload, which a package's
installation is enough for, it writes them anew.  The agent puts that right within a tick; but a memory
limit below what is in use would meanwhile make the kernel reclaim, or kill.  So a drop-in file beside the
unit says nearly what is in force, and the reload, which reads it again, lands there.

It may follow slowly: CPU is repaired at once and hurts nobody.  Memory is said to be more than the limit is,
in steps, and told as soon as the limit comes near.
"""

import functools
import math
import re
from dataclasses import dataclass

import msgspec

from escra_agent.memoryshape import band_bytes
from escra_common.messages import CpuLimit, MemoryLimit
from escra_common.units import MAX_BYTES, MIN_QUOTA_USEC

# What a CPU limit has moved, of what was said last, to be worth another file; and how often at most.
MOVED = 0.1
EVERY_S = 3.0
# So old, anything that differs at all is said.
OLD_S = 60.0
# Memory: the step that is at least so far above the limit.
STEP, HEADROOM = 1.25, 1.1
_LEAST_STEP_BYTES = 1 << 20
_PAGE_BYTES = 1 << 16  # the largest there are

_SECTIONS = {name: name.title() for name in ("service", "scope", "slice", "socket", "mount", "swap")}
_UNIT = re.compile(rf"[A-Za-z0-9:_.\\@-]{{1,240}}\.({'|'.join(_SECTIONS)})")
_HEADER = """\
# Written by escra-agent, so that `systemctl daemon-reload` puts back nearly the limits that it holds for this
# unit, and removed when it lets go of the unit.  Do not edit.
"""
_RECORD = "# record: "
# systemd has hundredths of a percent, and ignores a line with more.
_WHOLE = 10_000


@functools.lru_cache(4096)
def unit_of(path: str) -> str | None:
    """The unit that owns the cgroup ``path``: one of the system manager's, in slices all the way down.

    >>> unit_of("/system.slice/docker-1f.scope"), unit_of("/docker/1f"), unit_of("/a.slice/b.service/c.scope")
    ('docker-1f.scope', None, None)
    """
    *above, name = path.strip("/").split("/")
    # systemd puts an underscore before names that the kernel could take for files of its own.
    name = name.removeprefix("_")
    if not _UNIT.fullmatch(name) or not all(part.endswith(".slice") for part in above):
        return None
    return name


@dataclass(frozen=True, slots=True)
class Properties:
    """What a file says; None is nothing.  The originals are what is to be had back without us."""

    cpu: CpuLimit | None
    max_bytes: int | None
    high_bytes: int | None
    original: CpuLimit
    original_memory: MemoryLimit | None

    def landed_cpu(self) -> CpuLimit | None:
        """The limit that systemd makes of it; it leaves the burst alone."""
        if self.cpu is None:
            return None
        return CpuLimit(
            max(MIN_QUOTA_USEC, _share(self.cpu) * self.cpu.period_usec // _WHOLE), self.cpu.period_usec
        )

    def original_behind(self, found: CpuLimit) -> CpuLimit | None:
        """The limit before Escra of a unit found anew with ``found``; None when that is not from here."""
        landed = self.landed_cpu()
        return self.original if landed is not None and _bandwidth(landed) == _bandwidth(found) else None

    def original_memory_behind(self, found: MemoryLimit) -> MemoryLimit | None:
        if self.max_bytes is None or found.max_bytes is None:
            return None
        # The kernel keeps whole pages.
        return self.original_memory if 0 <= self.max_bytes - found.max_bytes < _PAGE_BYTES else None


def properties(
    cpu: CpuLimit | None,
    memory: MemoryLimit | None,
    original: CpuLimit,
    original_memory: MemoryLimit | None,
    *,
    banded: bool,
) -> Properties:
    """For the limits in force of ours; None is not managed.

    A reload that lands here throttles nobody: memory.high, where there is one, is not below the limit either.
    """
    max_bytes = high_bytes = None
    if memory is not None and memory.max_bytes is not None:
        max_bytes = step_above(memory.max_bytes)
        if banded:
            high_bytes, max_bytes = max_bytes, min(MAX_BYTES, max_bytes + band_bytes(max_bytes, 0))
    managed = cpu if cpu is not None and cpu.quota_usec is not None else None
    return Properties(managed, max_bytes, high_bytes, original, original_memory)


def step_above(limit_bytes: int) -> int:
    """The least step with ``HEADROOM`` above the limit.

    >>> step_above(64 << 20) >> 20, step_above(70 << 20) >> 20, step_above(75 << 20) >> 20
    (86, 86, 86)
    """
    count = math.ceil(math.log(max(1.0, limit_bytes * HEADROOM / _LEAST_STEP_BYTES), STEP) - 1e-9)
    return min(MAX_BYTES, math.ceil(_LEAST_STEP_BYTES * STEP**count))


class UnitPlan:
    """What was said last, and what is due."""

    def __init__(self) -> None:
        self.said: Properties | None = None
        self._said_at = float("-inf")

    def due(self, wish: Properties, now: float) -> bool:
        """Whether ``wish`` should be written now."""
        said, age = self.said, now - self._said_at
        if wish == said:
            return False
        if said is None or (wish.max_bytes or 0) > (said.max_bytes or 0):
            return True
        if age < EVERY_S:
            return False
        return age >= OLD_S or wish.max_bytes != said.max_bytes or _moved(said.cpu, wish.cpu)

    def say(self, wish: Properties, now: float) -> None:
        self.said, self._said_at = wish, now

    def forget(self) -> None:
        """It could not be written."""
        self.said, self._said_at = None, float("-inf")


def render(unit: str, wish: Properties) -> str:
    """The drop-in file of ``unit``, which ``unit_of`` gave; ``parse`` reads it again."""
    lines = [f"[{_SECTIONS[unit.rpartition('.')[2]]}]"]
    if wish.cpu is not None:
        share = _share(wish.cpu)
        lines += [f"CPUQuota={share // 100}.{share % 100:02}%", f"CPUQuotaPeriodSec={wish.cpu.period_usec}us"]
    if wish.high_bytes is not None:
        lines.append(f"MemoryHigh={wish.high_bytes}")
    if wish.max_bytes is not None:
        lines.append(f"MemoryMax={wish.max_bytes}")
    record = msgspec.json.encode(wish).decode()
    return _HEADER + _RECORD + record + "\n" + "\n".join(lines) + "\n"


def parse(text: str) -> Properties | None:
    """None for a file that is not ours, or damaged."""
    line = next((line for line in text.splitlines() if line.startswith(_RECORD)), "")
    try:
        return msgspec.json.decode(line.removeprefix(_RECORD), type=Properties)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _share(cpu: CpuLimit) -> int:
    """In hundredths of a percent of a core, not above the limit, and not below what the kernel takes (K1)."""
    quota = cpu.quota_usec or 0
    return max(quota * _WHOLE // cpu.period_usec, -(-MIN_QUOTA_USEC * _WHOLE // cpu.period_usec))


def _bandwidth(limit: CpuLimit) -> tuple[int | None, int]:
    return limit.quota_usec, limit.period_usec


def _moved(said: CpuLimit | None, wish: CpuLimit | None) -> bool:
    if said is None or wish is None:
        return said is not wish
    before, after = _share(said), _share(wish)
    return said.period_usec != wish.period_usec or abs(after - before) >= MOVED * before
