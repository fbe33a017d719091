"""Connections that have not yet shown whom they speak for: how many there may be, and who gives way.

Pure.  A stranger costs memory and a descriptor before anybody knows whether it is worth them.  So one
address may have only so many, and all of them together too.  Who comes is never turned away: the one that
has waited longest gives way, of the same address if that has its share already.  An honest agent is no
stranger any more after some milliseconds; who floods, from however many addresses, pushes out his own.
"""

from collections.abc import Callable

MAX_PER_ADDRESS = 64
MAX_STRANGERS = 1024


class Strangers:
    def __init__(self) -> None:
        self._next = 0
        # Both in the order of their coming.
        self._addresses: dict[int, str] = {}
        self._of: dict[str, dict[int, Callable[[], None]]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def admit(self, address: str, leave: Callable[[], None]) -> int:
        """A number for ``release``; ``leave`` is called, once at most, when it must make room."""
        own = self._of.get(address, {})
        full = len(self._addresses) >= MAX_STRANGERS
        if len(own) >= MAX_PER_ADDRESS or (full and len(own) >= MAX_STRANGERS // len(self._of)):
            self._dismiss(next(iter(own)))
        elif full:
            self._dismiss(next(iter(self._addresses)))
        self._next += 1
        self._addresses[self._next] = address
        self._of.setdefault(address, {})[self._next] = leave
        return self._next

    def release(self, number: int) -> None:
        """It is gone, or a stranger no more; may be said again."""
        self._take(number)

    def _dismiss(self, number: int) -> None:
        if (leave := self._take(number)) is not None:
            leave()

    def _take(self, number: int) -> Callable[[], None] | None:
        address = self._addresses.pop(number, None)
        if address is None:
            return None
        own = self._of[address]
        leave = own.pop(number)
        if not own:
            del self._of[address]
        return leave
