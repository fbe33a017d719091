"""Units as types, and the text people write them in.

The ledger counts CPU in whole millicores: integers add up exactly, so no limit is ever
lost to rounding.  People see cores and bytes; the kernel sees microseconds per period.
"""

import re
from typing import NewType

Millicores = NewType("Millicores", int)
Bytes = NewType("Bytes", int)


class Cpu(int):
    """An amount of CPU in a configuration (``2``, ``0.5``, ``"1500m"``), in millicores."""


class Size(int):
    """An amount of memory in a configuration (``"2GiB"``), in bytes."""


# K1: the kernel refuses a quota below 1 ms, and a period outside 1 ms..1 s.
MIN_QUOTA_USEC = 1_000
MIN_PERIOD_USEC = 1_000
MAX_PERIOD_USEC = 1_000_000
# The kernel takes far more than any machine has; nothing above this is a real wish.
MAX_MILLICORES = Millicores(1_000_000)
MAX_BYTES = Bytes(1 << 50)

# No number that means anything has more digits, and with these a float holds it.
_CPU = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(m?)", re.ASCII)
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,9})?)\s*([KMGT]i?)?B?", re.ASCII | re.IGNORECASE)
_FACTOR = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 1 << 10,
    "MI": 1 << 20,
    "GI": 1 << 30,
    "TI": 1 << 40,
}


def parse_cpu(text: str | int | float) -> Millicores:
    """Cores as people write them: ``4``, ``0.5``, ``"1.5"``, ``"1500m"``.

    >>> parse_cpu("1500m"), parse_cpu(2), parse_cpu("0.25")
    (1500, 2000, 250)

    Raises ValueError for anything else, and outside 0..1000 cores.
    """
    match = _CPU.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of CPU; write cores (1.5) or millicores (1500m)")
    milli = round(float(match[1]) * (1 if match[2] else 1000))
    if milli > MAX_MILLICORES:
        raise ValueError(f"{text!r} is more than {MAX_MILLICORES // 1000} cores")
    return Millicores(milli)


def parse_bytes(text: str | int) -> Bytes:
    """Sizes as people write them: ``"2GiB"``, ``"512M"`` (10^6), ``1073741824``.

    >>> parse_bytes("2GiB"), parse_bytes("1.5k"), parse_bytes(4096)
    (2147483648, 1500, 4096)

    Raises ValueError for anything else, and above 1 PiB.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 512MiB, 2GiB or a number of bytes")
    size = round(float(match[1]) * _FACTOR[(match[2] or "").upper()])
    if size > MAX_BYTES:
        raise ValueError(f"{text!r} is more than 1 PiB")
    return Bytes(size)


def cores(milli: int) -> float:
    """Millicores as cores, for people and for JSON."""
    return milli / 1000


def format_cores(milli: int | None) -> str:
    """
    >>> format_cores(1500), format_cores(None)
    ('1.50', 'max')
    """
    return "max" if milli is None else f"{milli / 1000:.2f}"


def format_bytes(size: int | None) -> str:
    """
    >>> format_bytes(3 << 30), format_bytes(1536), format_bytes(None)
    ('3.0GiB', '1.5KiB', 'max')
    """
    if size is None:
        return "max"
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def quota_usec(milli: int, period_usec: int) -> int:
    """The quota that gives ``milli`` in this period, never below what the kernel takes (K1)."""
    return max(MIN_QUOTA_USEC, milli * period_usec // 1000)


def quota_millicores(quota_usec: int, period_usec: int) -> Millicores:
    """What a quota allows, rounded up: the ledger may over-count a limit, never under-count it."""
    return Millicores(-(-quota_usec * 1000 // period_usec))


def least_millicores(period_usec: int) -> Millicores:
    """The smallest limit the kernel can hold in this period (K1): 1 % of a core at 100 ms."""
    return quota_millicores(MIN_QUOTA_USEC, period_usec)
