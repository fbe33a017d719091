"""What each host may hold of one application: on disk before it is granted.

After a crash the controller knows of a host that is away only what is on disk, and the disk is
written while decisions go on.  So a host holds at most its *bound*, and a bound counts from the moment
it is durable.  Bounds leave room to grow into, so a grant hardly ever waits for the disk, and a change within
them writes nothing.  The sum over all hosts has a bound too, under the name of no host.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from escra_common.units import MAX_BYTES, MAX_MILLICORES

ALL_HOSTS = ""
# A bound for whatever application: of a host that is known by name only.
ALL_APPS = "*"
# The first part of the name for a host of which only that it is there is known.
NAMELESS = "unknown-"
# A bound has room for half of what is held more, and for this part of the application.
HEADROOM = 8
# It is raised when less than this part of the application is left below it, and lowered from twice its size.
RAISE_BELOW = 16


class Bound(NamedTuple):
    """CPU in millicores, memory in bytes."""

    cpu: int
    memory: int

    def plus(self, other: "Bound") -> "Bound":
        return Bound(self.cpu + other.cpu, self.memory + other.memory)

    def less(self, other: "Bound") -> "Bound":
        return Bound(max(0, self.cpu - other.cpu), max(0, self.memory - other.memory))

    def least(self, other: "Bound") -> "Bound":
        return Bound(min(self.cpu, other.cpu), min(self.memory, other.memory))

    def most(self, other: "Bound") -> "Bound":
        return Bound(max(self.cpu, other.cpu), max(self.memory, other.memory))

    def covers(self, other: "Bound") -> bool:
        return self.cpu >= other.cpu and self.memory >= other.memory


NOTHING = Bound(0, 0)
EVERYTHING = Bound(int(MAX_MILLICORES), int(MAX_BYTES))


class Bounds:
    """Of one application.  ``ask`` gives the bound to make durable, ``secured`` says that one is.

    At most one request per host is under way, so what is durable is never in doubt for long.
    """

    def __init__(self, durable: Mapping[str, Bound]) -> None:
        self._durable = dict(durable)
        self._asked: dict[str, Bound] = {}

    def hosts(self) -> Iterable[str]:
        return [host for host in self._durable if host != ALL_HOSTS]

    def bound(self, host: str) -> Bound:
        """What may be held there now: a lower bound under way may be the one on disk already."""
        durable, asked = self._durable.get(host, NOTHING), self._asked.get(host)
        return durable if asked is None else durable.least(asked)

    def room(self, host: str, on_host: Bound, altogether: Bound) -> Bound:
        """How much more may be granted there."""
        here, everywhere = self.bound(host), self.bound(ALL_HOSTS)
        cpu = min(here.cpu - on_host.cpu, everywhere.cpu - altogether.cpu)
        memory = min(here.memory - on_host.memory, everywhere.memory - altogether.memory)
        return Bound(max(0, cpu), max(0, memory))

    def ask(self, host: str, held: Bound, more: Bound, omega: Bound) -> Bound | None:
        """The bound to secure so that ``more`` fits beside ``held``; None when that is so or under way."""
        if host in self._asked:
            return None
        durable, needed = self._durable.get(host, NOTHING), held.plus(more)
        if needed == NOTHING:
            return None if durable == NOTHING else self._request(host, NOTHING)
        wanted = _bound_for(needed, omega)
        if not durable.covers(needed.most(_nearly(held, omega))):
            return self._request(host, wanted.most(durable))
        lower = _lowered(durable, wanted)
        return self._request(host, lower) if more == NOTHING and lower != durable else None

    def ask_for_all(self, altogether: Bound, omega: Bound) -> Bound | None:
        """The same for the sum: Ω, or what is held above it still."""
        wanted = omega.most(altogether)
        if ALL_HOSTS in self._asked or self._durable.get(ALL_HOSTS) == wanted:
            return None
        return self._request(ALL_HOSTS, wanted)

    def secured(self, host: str, bound: Bound) -> None:
        if self._asked.get(host) != bound:
            return  # the answer to a question that was asked before all of this was forgotten
        del self._asked[host]
        if bound == NOTHING:
            self._durable.pop(host, None)
        else:
            self._durable[host] = bound

    def _request(self, host: str, wanted: Bound) -> Bound:
        self._asked[host] = wanted
        return wanted


class Absent:
    """Hosts that were there before a restart and have not come back: what they may hold of one application.

    Together they hold no more than the application had, less what those that are back brought with them.
    Of hosts that are known by name only another controller may be the leader still: as long as one of them is
    away the others share what those that are back brought, whatever Ω has become meanwhile.
    """

    def __init__(self, bounds: Mapping[str, Bound], altogether: Bound) -> None:
        self._bounds = dict(bounds)
        self._altogether = altogether
        self._brought = NOTHING
        self._been_back: set[str] = set()

    def reserved(self, omega: Bound) -> Bound:
        total = NOTHING
        for bound in self._bounds.values():
            total = total.plus(bound)
        by_name_only = EVERYTHING in self._bounds.values()
        most = omega.most(self._altogether) if by_name_only else self._altogether
        return total.least(most.less(self._brought))

    def awaits(self, host: str) -> bool:
        return host in self._bounds

    def expect(self, host: str, bound: Bound) -> None:
        """There is another one."""
        self._bounds[host] = bound

    def joined(self, host: str, held: Bound) -> None:
        """What it brings the first time was part of the sum; what it brings later was granted since."""
        self._bounds.pop(host, None)
        if host not in self._been_back:
            self._been_back.add(host)
            self._brought = self._brought.plus(held)

    def forgotten(self, host: str) -> None:
        """A person, or its lease, says that it holds nothing any more."""
        self._bounds.pop(host, None)


def _bound_for(held: Bound, omega: Bound) -> Bound:
    wanted = (
        max(have, min(have + have // 2 + whole // HEADROOM, whole))
        for have, whole in zip(held, omega, strict=True)
    )
    return Bound(*wanted)


def _nearly(held: Bound, omega: Bound) -> Bound:
    """So much should be free below a bound."""
    return Bound(*(min(have + whole // RAISE_BELOW, whole) for have, whole in zip(held, omega, strict=True)))


def _lowered(durable: Bound, wanted: Bound) -> Bound:
    """Only what is twice as much as is wanted: whoever wants the room again has to wait for the disk."""
    return Bound(*(want if have > 2 * want else have for have, want in zip(durable, wanted, strict=True)))
