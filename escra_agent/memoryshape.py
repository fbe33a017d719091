"""How a memory limit is laid over the files of the kernel.  Pure."""

from dataclasses import dataclass

from escra_common.messages import MemoryLimit
from escra_common.units import MAX_BYTES

# From the moment the kernel gives notice to a raised limit, with some to spare.
REACTION_S = 0.03
LEAST_BAND_BYTES = 2 << 20
LEAST_BAND_SHARE = 0.03
# The kernel rounds down to whole pages; where they are larger, one of those.
PAGE_BYTES = 4096
MOST_BAND_SHARE = 0.25


def band_bytes(max_bytes: int, growth: int) -> int:
    """How far below the limit memory.high stands (v2), and a need begins.

    >>> band_bytes(1 << 30, 0) >> 20, band_bytes(1 << 30, 4 << 30) >> 20
    (30, 122)
    """
    least = max(LEAST_BAND_BYTES, int(max_bytes * LEAST_BAND_SHARE))
    return min(int(max_bytes * MOST_BAND_SHARE), max(least, int(growth * REACTION_S)))


@dataclass(frozen=True, slots=True)
class Shape:
    """How a limit of so many bytes is laid over the files of the kernel.

    ``original`` says how much swap there is on top; ``banded`` that memory.high stands below the limit (v2).
    """

    original: MemoryLimit
    banded: bool

    def limit(self, max_bytes: int, in_use_bytes: int, growth: int = 0) -> MemoryLimit:
        """The band is at most half of what is free above ``in_use_bytes``: it throttles nobody."""
        return self.told_apart(self._limit(max_bytes, in_use_bytes, growth))

    def told_apart(self, limit: MemoryLimit) -> MemoryLimit:
        """Never the original itself, but a page below it: for the reasons of quotas.told_apart."""
        if limit != self.original or limit.max_bytes is None or limit.max_bytes <= PAGE_BYTES:
            return limit
        return self._limit(limit.max_bytes - PAGE_BYTES, limit.max_bytes, 0)

    def _limit(self, max_bytes: int, in_use_bytes: int, growth: int) -> MemoryLimit:
        if not self.banded:
            return MemoryLimit(max_bytes, None, self._swap_bytes(max_bytes))
        room = max(0, max_bytes - in_use_bytes)
        high = max_bytes - min(band_bytes(max_bytes, growth), room // 2)
        return MemoryLimit(max_bytes, high, self.original.swap_bytes)

    def _swap_bytes(self, max_bytes: int) -> int | None:
        """memsw of v1: the swap on top stays what the original allowed, and no limit stays none."""
        had = self.original
        if had.max_bytes is None or had.swap_bytes is None:
            return None
        return min(MAX_BYTES, max_bytes + max(0, had.swap_bytes - had.max_bytes))
