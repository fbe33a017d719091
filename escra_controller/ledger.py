"""The books of one application: who holds how much of Ω, counted so that it can never be overdrawn.

A limit in a kernel far away is known only by what its agent last read back.  Until an order
is acknowledged the kernel may hold the old limit, the new one, or any of several under way,
so the ledger counts the largest of them.  Growth is paid from what is then left: a shrink
frees nothing until it is acknowledged.  An order may leave its agent headroom to go up by itself:
that is counted as if it were in force, from the order on until the next one is acknowledged.

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
    """``held`` is the last limit read back, ``ordered`` the last one asked for, ``rev`` its revision.

    ``ceiling`` is how far the last order lets its agent go by itself, 0 where it does not.
    """

    held: int
    ordered: int
    rev: int
    highest: int
    ceiling: int = 0

    @property
    def counted(self) -> int:
        """The most the kernel can be holding now."""
        return max(self.held, self.highest)

    @property
    def pending(self) -> bool:
        return self.rev != 0

    @property
    def headroom(self) -> int:
        """What its agent may still take by itself, by all that is known."""
        return max(0, self.ceiling - max(self.held, self.ordered))

    @property
    def frees(self) -> bool:
        """Whether less is counted when the last order is acknowledged as it was given."""
        return self.pending and max(self.ordered, self.ceiling) < self.counted


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
        self._counted = self._headroom = 0
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
    def headroom(self) -> int:
        """What all agents together may still take by themselves."""
        return self._headroom

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
        self._count(key, entry.counted, entry.headroom)
        self._overhang = max(self._overhang, self._counted)

    def order(self, key: K, amount: int, rev: int, headroom: int = 0) -> None:
        """Count an order that is about to be sent; raises Overdraft when it does not fit."""
        entry, most = self._entries.get(key), amount + headroom
        counted = entry.counted if entry else 0
        if most > counted and most - counted > self.free:
            raise Overdraft(f"{key}: {counted} -> {most} with {self.free} free of {self.omega}")
        if entry is None:
            entry = self._entries[key] = Entry(0, 0, 0, 0)
        before = counted, entry.headroom
        entry.ordered = amount
        entry.rev = rev
        entry.highest = max(entry.highest, most)
        entry.ceiling = most if headroom else 0
        self._settle(key, entry, before)

    def acknowledge(self, key: K, rev: int, held: int, *, carried_out: bool = True) -> bool:
        """Book what the kernel was read to hold; True when this was the last order under way.

        One that was not ``carried_out`` leaves no headroom either.
        """
        entry = self._entries.get(key)
        if entry is None:
            return False
        before = entry.counted, entry.headroom
        entry.held = held
        last = rev == entry.rev
        if last:
            entry.rev = 0
            entry.ordered, entry.ceiling = held, entry.ceiling if carried_out else 0
            entry.highest = max(held, entry.ceiling)
        self._settle(key, entry, before)
        # A kernel may hold more than was ordered (a refused write): then it is so.
        self._overhang = max(self._overhang, self._counted)
        return last

    def drew(self, key: K, held: int) -> None:
        """Its agent went up by itself, and has no headroom left but that of an order under way."""
        entry = self._entries[key]
        before = entry.counted, entry.headroom
        entry.held = held
        if not entry.pending:
            entry.ordered = entry.highest = held
            entry.ceiling = 0
        self._settle(key, entry, before)
        self._overhang = max(self._overhang, self._counted)

    def forget(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._settle(key, Entry(0, 0, 0, 0), (entry.counted, entry.headroom))

    def check(self) -> None:
        """Promise 1, as arithmetic; raises AssertionError."""
        total = sum(entry.counted for entry in self._entries.values())
        assert total == self._counted, f"counted {self._counted}, but the entries sum to {total}"
        assert total <= max(self.omega, self._overhang), f"{total} counted of {self.omega}"
        assert self._headroom == sum(entry.headroom for entry in self._entries.values())
        on_host: dict[str, int] = {}
        for key, entry in self._entries.items():
            on_host[self._host(key)] = on_host.get(self._host(key), 0) + entry.counted
        assert {h: n for h, n in on_host.items() if n} == self._on_host, "the hosts' sums are others"

    def _settle(self, key: K, entry: Entry, before: tuple[int, int]) -> None:
        """``before``: what was counted for it, and its headroom."""
        self._count(key, entry.counted - before[0], entry.headroom - before[1])
        self._shed()

    def _count(self, key: K, more: int, headroom: int) -> None:
        self._counted += more
        self._headroom += headroom
        host = self._host(key)
        if on_host := self._on_host.get(host, 0) + more:
            self._on_host[host] = on_host
        else:
            self._on_host.pop(host, None)

    def _shed(self) -> None:
        self._overhang = min(self._overhang, self._counted)
        if self._counted <= self.omega:
            self._overhang = 0
