"""Deliberate faults, each a small patch of one seam of the product, that the simulation must find.

A suite that finds nothing proves nothing: with each of these a promise breaks within a few seeds.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import escra_agent.roster
import escra_controller.absence
import escra_controller.allocator
from escra_agent.memoryplan import MemoryPlan
from escra_agent.originals import OriginalsStore
from escra_agent.planner import Plan
from escra_agent.roster import Roster
from escra_agent.standing import Standing, StandingFile
from escra_common.messages import CpuLimit
from escra_common.session import Session
from escra_controller.absence import Absence
from escra_controller.allocator import Allocator
from escra_controller.bounds import EVERYTHING, NOTHING, Absent, Bounds
from escra_controller.cpuheadroom import CpuHeadroom
from escra_controller.ledger import Entry, Ledger
from escra_controller.membership import Membership
from escra_controller.memoryorders import MemoryOrders
from escra_controller.rounds import Round
from escra_controller.state import Host, limit_millicores
from tests.simulation.kernel import MIB
from tests.simulation.scenario import BURSTS, LEASE_S, LEASES, make

SEEDS = 1000
Seam = tuple[Any, str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Plant:
    """``breaks`` says what goes wrong; a seam is an owner, a name in it, and what spoils it.

    It is found by the first ``SEEDS``, of those the ones with its ``theme`` if it names one.
    """

    breaks: str
    seams: tuple[Seam, ...]
    theme: str = ""

    def seeds(self) -> Iterator[int]:
        return (seed for seed in range(SEEDS) if self.theme in ("", make(seed).theme))


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """The product has this fault."""
    before = [(owner, attribute, vars(owner)[attribute]) for owner, attribute, _ in PLANTS[name].seams]
    try:
        for owner, attribute, make in PLANTS[name].seams:
            setattr(owner, attribute, make(vars(owner)[attribute]))
        yield
    finally:
        for owner, attribute, original in before:
            setattr(owner, attribute, original)


def _always(value: object) -> Callable[[Any], Any]:
    return lambda original: lambda *_, **__: value


def _property(value: Callable[[Any], object]) -> Callable[[Any], Any]:
    return lambda original: property(value)


def _then(after: Callable[..., object]) -> Callable[[Any], Any]:
    """The original, and then this, with the same arguments."""

    def make(original: Callable[..., object]) -> Callable[..., object]:
        def both(*args: Any, **named: Any) -> object:
            result = original(*args, **named)
            after(*args, **named)
            return result

        return both

    return make


# ---- the controller ----------------------------------------------------------------


def _forget_host(membership: Membership, name: str, reason: str) -> None:
    for key, member in membership._all.members.items():
        if key.host == name:
            app = membership._all.apps[member.info.app]
            app.ledger.forget(key)
            app.memory.forget(key)
            member.limit = member.memory.limit = None
            member.state = "new"


def _ignore_in_force(original: Callable[..., None]) -> Callable[..., None]:
    def place(membership: Membership, app: Any, member: Any, *, snapshot: bool) -> None:
        if snapshot:
            app.ledger.forget(member.key)
            member.state, member.limit = "new", None
        else:
            original(membership, app, member, snapshot=snapshot)

    return place


def _free_at_once(membership: Membership, member: Any, *_: Any, **__: Any) -> None:
    app = membership._all.apps.get(member.info.app)
    if app is not None:
        app.ledger.forget(member.key)
        app.memory.forget(member.key)


def _believe(original: Callable[..., bool]) -> Callable[..., bool]:
    """Whatever was read back: what was ordered is taken to be in force."""

    def acknowledge(ledger: Ledger[Any], key: Any, rev: int, held: int, **named: bool) -> bool:
        entry = ledger._entries.get(key)
        return original(ledger, key, rev, entry.ordered if entry and entry.rev == rev else held, **named)

    return acknowledge


def _believe_order(orders: MemoryOrders, r: Any, member: Any, target: int, wish: Any) -> None:
    r.app.memory.acknowledge(member.key, member.memory.last_rev, target)


def _no_headroom(original: Callable[..., None]) -> Callable[..., None]:
    def order(ledger: Ledger[Any], key: Any, amount: int, rev: int, headroom: int = 0) -> None:
        original(ledger, key, amount, rev)

    return order


def _no_cpu_headroom(original: Callable[..., None]) -> Callable[..., None]:
    def order(ledger: Ledger[Any], key: Any, amount: int, rev: int, headroom: int = 0) -> None:
        original(ledger, key, amount, rev, headroom if amount > MIB else 0)

    return order


def _back_at_once(original: Callable[..., int]) -> Callable[..., int]:
    def take_back(agents: CpuHeadroom, r: Any, wanted: int) -> int:
        coming = original(agents, r, wanted)
        for member in r.reachable:
            if member.key in r.app.ledger and member.limit is not None and not member.headroom_rev:
                r.app.ledger.acknowledge(member.key, member.last_rev, r.app.ledger[member.key].held)
        return coming

    return take_back


def _with_burst(original: Any) -> Any:
    return lambda host, key, rev, milli, burst, aligned: original(host, key, rev, milli, milli // 5, aligned)


# ---- the agent ---------------------------------------------------------------------


def _loans_in_full(_: Any) -> Callable[[Plan, CpuLimit, int], CpuLimit]:
    def part(plan: Plan, limit: CpuLimit, part_usec: int) -> CpuLimit:
        plan._rest_of, plan.extra_usec = limit, 0
        return CpuLimit(part_usec, limit.period_usec)

    return part


def _several_times(original: Callable[..., int]) -> Callable[..., int]:
    return lambda *args: 5 * original(*args)


def _forget_original(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda candidate, cgroup, known, **named: original(candidate, cgroup, None, **named)


def _keep_waiting(original: Callable[..., None]) -> Callable[..., None]:
    def new_controller(plan: Plan) -> None:
        plan.rev = 0

    return new_controller


def _forget_epoch(file: StandingFile, *_: object) -> None:
    file.standing = Standing(file.standing.boot_id)


def _any_number(original: Callable[..., None]) -> Callable[..., None]:
    return lambda session, number: None


PLANTS = {
    "grant-before-ack": Plant(
        "a shrink frees its share before it is acknowledged: the ledger counts what was ordered",
        ((Entry, "counted", _property(lambda entry: entry.ordered)),),
    ),
    "host-forgotten": Plant(
        "a host that left is not counted any more, though its containers hold what they hold",
        ((Membership, "left", _then(_forget_host)),),
    ),
    "in-force-ignored": Plant(
        "what a snapshot says is in force is not counted, so it is granted anew",
        ((Membership, "_place_cpu", _ignore_in_force),),
    ),
    "burst-not-counted": Plant(
        "a container may use its burst beside its quota, and the pool pays for the quota only (K8)",
        (
            (Allocator, "charge", lambda _: lambda allocator, limit: limit),
            (escra_controller.allocator, "charge_millicores", lambda _: limit_millicores),
            (escra_controller.allocator, "SetLimit", _with_burst),
        ),
    ),
    "release-frees-at-once": Plant(
        "what a released container holds is granted to others before its agent gave it back",
        ((Membership, "release", _then(_free_at_once)),),
    ),
    "refusal-believed": Plant(
        "a write that the kernel refused, or a cut that ended early, counts as made",
        ((Ledger, "acknowledge", _believe),),
    ),
    "memory-cut-believed": Plant(
        "a cut of memory frees its share when it is ordered, not when it is made",
        ((MemoryOrders, "order", _then(_believe_order)),),
    ),
    "headroom-not-counted": Plant(
        "what an agent may take by itself is free for others",
        ((Ledger, "order", _no_headroom),),
    ),
    "cpu-headroom-not-counted": Plant(
        "the same, of CPU only",
        ((Ledger, "order", _no_cpu_headroom),),
        BURSTS,
    ),
    "headroom-back-at-once": Plant(
        "CPU headroom that is to come back is free before its agent was told",
        ((CpuHeadroom, "take_back", _back_at_once),),
        BURSTS,
    ),
    "loans-above-the-limit": Plant(
        "what others lent makes a file say more than its limit, also when they have theirs again",
        ((Plan, "_part", _loans_in_full), (Plan, "lacks_usec", _several_times)),
    ),
    "absent-not-reserved": Plant(
        "after a restart, hosts that have not come back yet are not counted at their bounds",
        ((Absent, "reserved", _always(NOTHING)),),
    ),
    "beyond-the-bound": Plant(
        "limits grow beyond what is durable: after a crash absent hosts hold more than is counted",
        ((Bounds, "room", _always(EVERYTHING)),),
        "restarts",
    ),
    "originals-overwritten": Plant(
        "an agent that restarts takes the limit of its predecessor for the original",
        ((escra_agent.roster, "inspect", _forget_original),),
    ),
    "originals-forgotten": Plant(
        "the record of originals is lost with the agent",
        ((OriginalsStore, "load", _always([])),),
    ),
    "waiting-survives": Plant(
        "an order that waits for a period boundary is carried out although the connection it came by is lost",
        ((Plan, "new_controller", _keep_waiting),),
    ),
    "snapshot-too-early": Plant(
        "an agent that restarts says what it has before it knows all that it has",
        ((Roster, "unclaimed", _property(lambda roster: False)),),
    ),
    "denied-hangs": Plant(
        "tasks of a container that was refused memory are never let go (v1, K11)",
        ((MemoryPlan, "wants_arms", _property(lambda plan: plan.wanted is not None)),),
    ),
    "drift-stays": Plant(
        "what a stranger wrote into the limits is not repaired",
        ((Plan, "repair", _always(None)), (MemoryPlan, "repair", _always(None))),
    ),
    "lease-cut-short": Plant(
        "what a host holds that is away is free for others before the agent there has given it back",
        ((escra_controller.absence, "LEASE_MARGIN_S", lambda _: -LEASE_S),),
        LEASES,
    ),
    "lease-ignored": Plant(
        "an agent that is alone for longer than its lease keeps the limits, which the controller counts on",
        ((Standing, "lapsed", _always([])),),
        LEASES,
    ),
    "rival-forgotten": Plant(
        "what a host holds that follows another leader by now is free for others when its lease is over",
        ((Host, "may_follow_another", _property(lambda host: False)),),
        LEASES,
    ),
    "any-leader": Plant(
        "an agent obeys a controller that another one has superseded",
        ((Standing, "objection", _always("")),),
        "leaders",
    ),
    "epoch-forgotten": Plant(
        "an agent that restarts does not know any more whom it followed, and on what terms",
        ((StandingFile, "__init__", _then(_forget_epoch)),),
        LEASES,
    ),
    "strangers-unknown": Plant(
        "a standby that was promoted does not wait for a host that it has never met, and that holds limits",
        ((Absence, "expect", _always("")),),
        "leaders",
    ),
    "strangers-admitted": Plant(
        "a host has limits of which neither the standby nor the other hosts know",
        ((Round, "admits", lambda _: Round.reaches),),
        "leaders",
    ),
    "any-number": Plant(
        "frames that were lost, repeated or overtaken on the way go unnoticed",
        ((Session, "_check_number", _any_number),),
        "wire",
    ),
}
