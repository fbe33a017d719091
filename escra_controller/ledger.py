"""The books of one application: who holds how much of Ω, counted so that it can never be overdrawn.

A limit in a kernel far away is known only by what its agent last read back.  Until an order
is acknowledged the kernel may hold the old limit, the new one, or any of several under way,
so the ledger counts the largest of them.  Growth is paid from what is then left: a shrink
frees nothing until it is acknowledged.

The amounts are plain integers: millicores for CPU.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Overdraft(Exception):
    """An order would push the sum over Ω: a fault of the caller, never of its input."""


@dataclass(slots=True)
class Entry:
    """``held`` is the last limit read back, ``ordered`` the last one asked for, ``rev`` its revision."""

    held: int
    ordered: int
    rev: int
    highest: int

    @property
    def counted(self) -> int:
        """The most the kernel can be holding now."""
        return max(self.held, self.highest)

    @property
    def pending(self) -> bool:
        return self.rev != 0


class Ledger(Generic[K]):
    """Σ counted <= max(Ω, overhang), always; ``overhang`` only falls.

    An overhang arises when Ω is lowered, or when a host comes back holding more than is left:
    what is in force already cannot be undone by arithmetic, only worked off by shrinks.

    ``reserved`` is what may be held where nobody can look at present: it is not free either.
    ``host`` says where a key's limit is in force.
    """

    def __init__(self, omega: int, host: Callable[[K], str] = lambda key: "") -> None:
        self.omega = omega
        self.reserved = 0
        self._host = host
        self._entries: dict[K, Entry] = {}
        self._on_host: dict[str, int] = {}
        self._counted = 0
        self._overhang = 0

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __getitem__(self, key: K) -> Entry:
        return self._entries[key]

    def get(self, key: K) -> Entry | None:
        return self._entries.get(key)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    @property
    def counted(self) -> int:
        return self._counted

    @property
    def free(self) -> int:
        """What can be granted now; never negative."""
        return max(0, self.omega - self._counted - self.reserved)

    def counted_on(self, host: str) -> int:
        return self._on_host.get(host, 0)

    def hosts(self) -> Iterator[str]:
        return iter(self._on_host)

    def resize(self, omega: int) -> None:
        self.omega = omega
        self._overhang = self._counted

    def adopt(self, key: K, held: int) -> None:
        """Take over a limit that is in force already, whether or not there is room for it."""
        self.take_over(key, Entry(held, held, 0, held))

    def take_over(self, key: K, entry: Entry) -> None:
        """The same of what other books counted, with what was ordered there and is under way."""
        self.forget(key)
        self._entries[key] = replace(entry)
        self._count(key, entry.counted)
        self._overhang = max(self._overhang, self._counted)

    def order(self, key: K, amount: int, rev: int) -> None:
        """Count an order that is about to be sent; raises Overdraft when it does not fit."""
        entry = self._entries.get(key)
        before = entry.counted if entry else 0
        if amount > before and amount - before > self.free:
            raise Overdraft(f"{key}: {before} -> {amount} with {self.free} free of {self.omega}")
        if entry is None:
            entry = self._entries[key] = Entry(0, 0, 0, 0)
        entry.ordered = amount
        entry.rev = rev
        entry.highest = max(entry.highest, amount)
        self._settle(key, entry, before)

    def acknowledge(self, key: K, rev: int, held: int) -> bool:
        """Book what the kernel was read to hold; True when this was the last order under way."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        before = entry.counted
        entry.held = held
        last = rev == entry.rev
        if last:
            entry.rev = 0
            entry.ordered = entry.highest = held
        self._settle(key, entry, before)
        # A kernel may hold more than was ordered (a refused write): then it is so.
        self._overhang = max(self._overhang, self._counted)
        return last

    def forget(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._settle(key, Entry(0, 0, 0, 0), entry.counted)

    def check(self) -> None:
        """Promise 1, as arithmetic; raises AssertionError."""
        total = sum(entry.counted for entry in self._entries.values())
        assert total == self._counted, f"counted {self._counted}, but the entries sum to {total}"
        assert total <= max(self.omega, self._overhang), f"{total} counted of {self.omega}"
        on_host: dict[str, int] = {}
        for key, entry in self._entries.items():
            on_host[self._host(key)] = on_host.get(self._host(key), 0) + entry.counted
        assert {h: n for h, n in on_host.items() if n} == self._on_host, "the hosts' sums are others"

    def _settle(self, key: K, entry: Entry, before: int) -> None:
        self._count(key, entry.counted - before)
        self._shed()

    def _count(self, key: K, more: int) -> None:
        self._counted += more
        host = self._host(key)
        if on_host := self._on_host.get(host, 0) + more:
            self._on_host[host] = on_host
        else:
            self._on_host.pop(host, None)

    def _shed(self) -> None:
        self._overhang = min(self._overhang, self._counted)
        if self._counted <= self.omega:
            self._overhang = 0
