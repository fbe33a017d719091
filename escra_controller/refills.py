"""What our writes let through beyond the limits of an application (K3), in millicore-seconds.  Pure."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from escra_controller.recent import RecentSum

K = TypeVar("K", bound=Hashable)


class Refills(Generic[K]):
    """In the last second, as agents told, and by the orders under way, as it is expected of them."""

    __slots__ = ("_expected", "_recent", "_sum")

    def __init__(self) -> None:
        self._recent = RecentSum()
        self._expected: dict[K, int] = {}
        self._sum = 0

    def expect(self, key: K, amount: int) -> None:
        """Another order is under way: any of them may come yet."""
        self._expected[key] = self.expected(key) + amount
        self._sum += amount

    def expected(self, key: K) -> int:
        return self._expected.get(key, 0)

    def came(self, key: K, amount: int, now: float, *, last: bool) -> None:
        """An order was carried out; ``last``: no other one is under way."""
        if last:
            self._sum -= self._expected.pop(key, 0)
        if amount:
            self._recent.add(amount, now)

    def lapse(self, under_way: Callable[[K], bool], now: float) -> None:
        """Of orders that nobody will hear of any more, what was expected is taken to have come."""
        for key in [key for key in self._expected if not under_way(key)]:
            self.came(key, self._expected[key], now, last=True)

    def total(self, now: float) -> int:
        return self._recent.total(now) + self._sum
