"""Connections that have not yet shown whom they speak for: how many there may be, and who gives way.

Pure.  A stranger costs memory and a descriptor before anybody knows whether it is worth them.  So one
address may have only so many; more are turned away, which is the cheapest that can be done with a flood.  All
together may be only so many, too: then an address that has less than its share takes the place of the one
that has waited longest.  A flood, from however many addresses, keeps no other address out.
"""

from collections import Counter
from collections.abc import Callable

MAX_PER_ADDRESS = 64
MAX_STRANGERS = 1024


class Strangers:
    def __init__(self) -> None:
        self._next = 0
        # In the order of their coming.
        self._here: dict[int, tuple[str, Callable[[], None]]] = {}
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._here)

    def admit(self, address: str, leave: Callable[[], None]) -> int | None:
        """A number for ``release``, or None: turn it away.  ``leave`` is called when it must make room."""
        own = self._of.get(address, 0)
        if own >= MAX_PER_ADDRESS:
            return None
        if len(self._here) >= MAX_STRANGERS:
            if own >= MAX_STRANGERS // len(self._of):
                return None
            oldest, (_, make_room) = next(iter(self._here.items()))
            self.release(oldest)
            make_room()
        self._next += 1
        self._here[self._next] = address, leave
        self._of[address] = own + 1
        return self._next

    def release(self, number: int) -> None:
        """It is gone, or a stranger no more; may be said again."""
        if number in self._here:
            address, _ = self._here.pop(number)
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]
