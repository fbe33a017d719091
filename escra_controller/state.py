"""What the engine knows: hosts, containers, applications.  Data and derived facts, no decisions."""

from collections.abc import Container as Having
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from escra_common.errors import EscraError
from escra_common.messages import Container, CpuLimit, Heartbeat, Hello, Terms
from escra_common.units import cores, format_bytes, least_millicores, quota_millicores
from escra_controller.bounds import ALL_HOSTS, EVERYTHING, NOTHING, Absent, Bound, Bounds
from escra_controller.demand import Demand
from escra_controller.due import Due
from escra_controller.events import AppSpec, Decision
from escra_controller.ledger import Ledger
from escra_controller.memory import Memory
from escra_controller.policy import Rule, Wish
from escra_controller.recent import RecentPeak, RecentSum
from escra_controller.refills import Refills
from escra_controller.sharing import Claim, max_min

DECISIONS_KEPT = 64
REFILL_TOLERANCE = 0.01

State = Literal["managed", "new", "releasing", "observe", "off", "pinned", "unknown-app", "invalid"]


class Refused(EscraError):
    """Somebody asked for the impossible; nothing has changed."""


class MemberKey(NamedTuple):
    host: str
    key: int


def limit_millicores(limit: CpuLimit) -> int | None:
    """Quota in millicores, None without one."""
    return None if limit.quota_usec is None else quota_millicores(limit.quota_usec, limit.period_usec)


def charge_millicores(limit: CpuLimit) -> int | None:
    """What a limit in force counts for: quota plus burst (K8)."""
    quota = limit_millicores(limit)
    return None if quota is None else quota + quota_millicores(limit.burst_usec, limit.period_usec)


@dataclass(slots=True)
class Host:
    """``sent`` are the terms it was told last, ``terms`` those it says are in force."""

    hello: Hello
    connected: bool
    heard_at: float
    totals: Heartbeat = field(default_factory=Heartbeat)
    reason: str = ""
    sent: Terms | None = None
    terms: Terms | None = None
    lapsed: set[str] = field(default_factory=set)
    # Another controller, were it to lead, might not know of this host: nobody there gets a first limit.
    strange: bool = False
    unmet: bool = False

    @property
    def may_follow_another(self) -> bool:
        """While it is away: then what it does is not what its terms with this controller say."""
        return self.hello.several


@dataclass(slots=True)
class Member:
    """One container.  ``limit`` is the quota last read back or ordered, None while nobody manages it."""

    key: MemberKey
    info: Container
    state: State
    rule: Rule
    demand: Demand = field(default_factory=Demand)
    limit: int | None = None
    raised_by: int = 0
    last_rev: int = 0
    # The revision under which its agent goes up by itself, 0 where it may not; from where it just did.
    headroom_rev: int = 0
    drawn_from: int | None = None
    host_milli: int = 0
    host_bytes: int = 0
    problem: str = ""
    retry_at: float = 0.0
    # Of no application, where nothing is counted: as it is if its agent never heard that it is released.
    unreleased: Container | None = None
    memory: Memory = field(default_factory=Memory)
    # The latest, oldest first.
    decisions: list[Decision] = field(default_factory=list)
    # Millicore-seconds that our writes let through beyond its limits, and the limits that were left behind.
    refilled: RecentSum = field(default_factory=RecentSum)
    limits: RecentPeak = field(default_factory=RecentPeak)

    def keep(self, decision: Decision) -> None:
        self.decisions.append(decision)
        if len(self.decisions) > DECISIONS_KEPT:
            del self.decisions[0]

    @property
    def memory_wanted(self) -> bool:
        """Whether its memory is to be managed.  Being pinned to processors is no reason not to."""
        memory = self.info.memory
        return memory is not None and not memory.problem and self.state in ("managed", "new", "pinned")


@dataclass(slots=True)
class App:
    """``ledger`` counts CPU in millicores, ``memory`` bytes.

    ``bounds`` are what each host may hold, None where nothing is kept over a restart.  ``absent`` are the
    hosts from before a restart that have not come back.
    """

    spec: AppSpec
    ledger: Ledger[MemberKey]
    memory: Ledger[MemberKey]
    bounds: Bounds | None = None
    absent: Absent = field(default_factory=lambda: Absent({}, NOTHING))
    members: dict[MemberKey, Member] = field(default_factory=dict)
    unmet: dict[MemberKey, tuple[Wish, float]] = field(default_factory=dict)
    # Nobody looks at all members to find a few.  When to look at which, for CPU and for memory; who may be
    # without a limit that it should have; who may be waiting for an answer about memory.
    due: Due[MemberKey] = field(default_factory=Due)
    memory_due: Due[MemberKey] = field(default_factory=Due)
    newcomers: dict[MemberKey, Member] = field(default_factory=dict)
    asking: dict[MemberKey, Member] = field(default_factory=dict)
    refills: Refills[MemberKey] = field(default_factory=Refills)
    counted: RecentPeak = field(default_factory=RecentPeak)
    # Since the controller began, also of containers that are gone: see Memory.
    oom_averted: int = 0
    shared_at: float = float("-inf")
    secured_at: float = float("-inf")
    # Taken out of the configuration; kept until nothing is counted any more.
    removed: bool = False
    _claims: dict[MemberKey, Claim] = field(default_factory=dict)
    _fair: dict[MemberKey, int] | None = None
    _memory_fair: dict[MemberKey, int] | None = None

    def changed(self, member: Member | None = None) -> None:
        """Who is in it, what this member may have, or (None) what all of them may have is another now."""
        self._fair = self._memory_fair = None
        if member is None:
            self._claims.clear()
            for each in self.members.values():
                self.look_at(each)
        else:
            self._claims.pop(member.key, None)
            self.look_at(member)

    def look_at(self, member: Member) -> None:
        """At the next tick, whatever its time was: it is not as it was."""
        if member.key in self.members:
            self.due.put(member.key, 0.0)
            self.memory_due.put(member.key, 0.0)
            if _lacks_limit(member):
                self.newcomers[member.key] = member

    def forget(self, key: MemberKey) -> None:
        """No member any more."""
        if (member := self.members.pop(key, None)) is not None:
            self.changed(member)
        for waiting in (self.unmet, self.newcomers, self.asking):
            waiting.pop(key, None)
        for ledger in (self.ledger, self.memory):
            ledger.forget(key)

    def tidy(self, now: float) -> None:
        """Who has been answered is not asked again."""
        self.refills.lapse(lambda key: (entry := self.ledger.get(key)) is not None and entry.pending, now)
        if self.newcomers:
            self.newcomers = {key: m for key, m in self.newcomers.items() if _lacks_limit(m)}
        if self.asking:
            self.asking = {key: m for key, m in self.asking.items() if m.memory.waiting is not None}

    def check(self) -> None:
        """What is remembered is as it would be found; raises AssertionError."""
        for ledger in (self.ledger, self.memory):
            ledger.check()
            for key in ledger:
                assert key in self.members, f"{key} is counted, but nobody knows it"
        for key, member in self.members.items():
            assert member.state not in ("managed", "releasing") or key in self.ledger
            assert member.memory.limit is None or key in self.memory
            assert not _lacks_limit(member) or key in self.newcomers, f"{key} would never be admitted"
            assert member.memory.waiting is None or key in self.asking, f"{key} would never be answered"
            claim = Claim(self.floor(member), self.ceiling(member), self.weight(member))
            assert self.claim(member) == claim, f"the claim of {key} is that of before a change"
        remembered = self.fair_shares(), self.memory_shares()
        self._fair = self._memory_fair = None
        assert remembered == (self.fair_shares(), self.memory_shares()), "the shares are those of before"

    @property
    def omega(self) -> Bound:
        return Bound(self.spec.cpu, self.spec.memory)

    @property
    def held(self) -> Bound:
        return Bound(self.ledger.counted, self.memory.counted)

    def held_on(self, host: str) -> Bound:
        return Bound(self.ledger.counted_on(host), self.memory.counted_on(host))

    def room(self, host: str) -> Bound:
        """How much more this host may be granted as long as its bound stays what it is."""
        if self.bounds is None:
            return EVERYTHING
        return self.bounds.room(host, self.held_on(host), self.held)

    def to_secure(self, host: str, more: Bound = NOTHING) -> Bound | None:
        """The bound to make durable so that there is ``more`` room, if it is not already."""
        if self.bounds is None:
            return None
        if host == ALL_HOSTS:
            return self.bounds.ask_for_all(self.held, self.omega)
        return self.bounds.ask(host, self.held_on(host), more, self.omega)

    def reserve(self) -> None:
        """Count what absent hosts may hold."""
        self.ledger.reserved, self.memory.reserved = self.absent.reserved(self.omega)

    def floor(self, member: Member) -> int:
        info = member.info
        own = self.spec.cpu_min if info.cpu_min_milli is None else info.cpu_min_milli
        return min(max(own, least_millicores(info.in_force.period_usec)), self.ceiling(member))

    def ceiling(self, member: Member) -> int:
        info = member.info
        own = self.spec.cpu_max if info.cpu_max_milli is None else info.cpu_max_milli
        # More than all processors of its host is nothing a container could use.
        bounds = [b for b in (own, info.cap_milli, member.host_milli) if b]
        return max(min([self.spec.cpu, *bounds]), least_millicores(info.in_force.period_usec))

    def memory_floor(self, member: Member) -> int:
        own = member.info.memory_min_bytes
        return min(self.spec.memory_min if own is None else own, self.memory_ceiling(member))

    def memory_ceiling(self, member: Member) -> int:
        info = member.info
        own = self.spec.memory_max if info.memory_max_bytes is None else info.memory_max_bytes
        cap = info.memory.cap_bytes if info.memory else None
        return min([self.spec.memory, *(bound for bound in (own, cap, member.host_bytes) if bound)])

    def refuse_below_floors(self, spec: AppSpec) -> None:
        """Raises Refused when the floors of these containers alone are more than ``spec`` has."""
        managed = [m for m in self.members.values() if m.state == "managed"]
        cpu = sum(self.floor(m) for m in managed)
        if spec.cpu < cpu:
            raise Refused(
                f"{spec.name}: {cores(spec.cpu):g} cores are less than the floors of its {len(managed)} "
                f"containers ({cores(cpu):g} cores together); lower escra.cpu.min or stop containers first"
            )
        counted = [m for m in self.members.values() if m.memory.limit is not None]
        memory = sum(max(self.memory_floor(m), m.memory.needed) for m in counted)
        if spec.memory < memory:
            raise Refused(
                f"{spec.name}: {format_bytes(spec.memory)} of memory are less than its {len(counted)} "
                f"containers use or are promised ({format_bytes(memory)} together); stop containers first"
            )

    def weight(self, member: Member) -> int:
        return member.info.weight * self.spec.weight

    def claim(self, member: Member) -> Claim:
        """Its floor, its ceiling and its weight; remembered until ``changed``."""
        claim = self._claims.get(member.key)
        if claim is None:
            claim = Claim(self.floor(member), self.ceiling(member), self.weight(member))
            self._claims[member.key] = claim
        return claim

    def fair_shares(self) -> dict[MemberKey, int]:
        """Everybody's weighted share of Ω between floor and ceiling, were all of them to want it.

        Remembered until ``changed``: it is asked for with every batch of samples.
        """
        if self._fair is None:
            claims = {key: self.claim(m) for key, m in self.members.items() if m.state in ("managed", "new")}
            self._fair = max_min(self.spec.cpu, claims)
        return self._fair

    def memory_shares(self) -> dict[MemberKey, int]:
        """The same for memory, in bytes."""
        if self._memory_fair is None:
            claims = {
                key: Claim(self.memory_floor(m), self.memory_ceiling(m), self.weight(m))
                for key, m in self.members.items()
                if m.memory_wanted
            }
            self._memory_fair = max_min(self.spec.memory, claims)
        return self._memory_fair


def _lacks_limit(member: Member) -> bool:
    """Whether it is, or may soon be, without a limit for CPU or memory that it should have."""
    return member.state == "new" or (member.memory_wanted and member.memory.limit is None)


def classify(info: Container, apps: Having[str], observed: Having[str] = ()) -> tuple[State, str]:
    """The state of a container that nobody has admitted yet, and what is wrong with it, if anything is.

    ``observed`` are those of ``apps`` whose containers are only looked at.
    """
    if info.problem:
        return "invalid", info.problem
    if info.mode == "off":
        return "off", ""
    if info.app not in apps:
        return "unknown-app", f"no [apps.{info.app}] in the controller's configuration"
    if info.mode == "observe" or info.app in observed:
        return "observe", ""
    if info.pinned:
        return "pinned", "pinned to processors by its cpuset; its quota is left alone"
    return "new", ""
