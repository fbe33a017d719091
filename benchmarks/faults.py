"""Does Ω hold whatever is killed, stopped, cut off or filled up?  (Promise 1, and what people are told.)

Worlds of hosts in network namespaces, under load, have one fault after the other; see injuries.py for the
kinds.  A watcher that asks nobody adds up the kernel's limits every 10 ms (watcher.py).

For each kind: ``omega_violations``, in how many of its ``checks`` the limits of an application summed to
more than Ω; ``lost_containers``, for how many the controller's word and the kernel's were not the same
again within 20 s; ``recovery_ms``, from the end of the fault until all hosts are connected, all containers
managed, and every difference between the kernel's limit and the one that is counted is an order under way
(audit.py), for which the controller is asked every 50 ms; ``moving_ms``, until limits have moved on
every host concerned, for which the load must want it: its bursts come every 1.1 s; ``stood_still``, how often
no limit moved on a host that was not concerned;
``use_ratio``, the worst window of 1 s to what Ω allows in it, and ``use_ratio_explained``, the same less
what the kernel itself allows groups that began late (watcher.py).  ``kernel_alone`` has the same of limits
that nobody writes, before Escra comes: the kernel charges use in ticks (4 ms at 250 Hz), so a group's window
holds up to a tick too much, which is little of a large Ω only.  ``--worlds 1`` has the largest.  ``worst`` is
what the groups did in that window: far more than a tick in one go was no limit's doing.
``use_ratio_running`` is ``use_ratio_explained`` of only those windows in which the machine ran all the time
(``windows_running``): where it is a guest that its host stops, the kernel charges that time to whoever had
the processor (stillness.py).

``hostile``: see hostile.py.
"""

import queue
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.hostile import HOSTILE, measure_hostile
from benchmarks.injuries import KINDS, Durations, Kind, docker_kind
from benchmarks.numbers import summary_ms
from benchmarks.stillness import Stillness
from benchmarks.watcher import Seen
from benchmarks.world import Interrupted, NotRecovered, Plan, Recovery, World, running_world
from escra_agent.hierarchy import Hierarchy
from tests.docker_engine import EngineTrouble
from tests.docker_engine import whats_missing as docker_missing
from tests.kernel_cgroups import controllers_enabled

DOCKER = "docker-restart"
ALL_KINDS = (*(kind.name for kind in KINDS), DOCKER, *HOSTILE)
# What the load of all worlds together may use, with all their daemons beside it; and of one alone.
CORES, CORES_ALONE = 0.9, 1.2
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Form:
    """How often the frequent kinds and the others are done, in how many worlds at a time; how long an attack
    lasts."""

    often: int
    seldom: int
    worlds: int
    durations: Durations
    hostile_s: float


QUICK = Form(2, 1, 3, Durations(stop_s=5.0, part_s=8.0), 4.0)
USUAL = Form(10, 3, 5, Durations(stop_s=30.0, part_s=60.0), 8.0)
FULL = Form(100, 10, 6, Durations(stop_s=30.0, part_s=60.0), 20.0)


@dataclass(slots=True)
class Tally:
    """All faults of one kind."""

    count: int = 0
    lost: int = 0
    stood_still: int = 0
    recoveries: list[Recovery] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def row(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "count": self.count,
            "omega_violations": sum(seen.violations for seen in self.seen),
            "lost_containers": self.lost,
            "stood_still": self.stood_still,
            "recovery_ms": summary_ms([each.well_s for each in self.recoveries]),
            "moving_ms": summary_ms([each.moved_s for each in self.recoveries]),
            "use_ratio": round(max((seen.use_ratio for seen in self.seen), default=0.0), 4),
            "use_ratio_explained": round(max((s.use_ratio_explained for s in self.seen), default=0.0), 4),
            "worst": max(self.seen, key=lambda seen: seen.use_ratio, default=Seen()).worst,
            "windows": sum(seen.windows for seen in self.seen),
            "use_ratio_running": round(max((s.use_ratio_running for s in self.seen), default=0.0), 4),
            "worst_running": max(self.seen, key=lambda s: s.use_ratio_running, default=Seen()).worst_running,
            "windows_running": sum(seen.windows_running for seen in self.seen),
            "checks": sum(seen.checks for seen in self.seen),
            "torn": sum(seen.torn for seen in self.seen),
            "moves": sum(seen.moves for seen in self.seen),
            "longest_gap_ms": round(1000 * max((seen.longest_gap_s for seen in self.seen), default=0.0), 1),
        }


def measure(
    quick: bool, say: Say, full: bool = False, kinds: Sequence[str] = ALL_KINDS, worlds: int = 0
) -> dict[str, Any]:
    if unknown := sorted(set(kinds) - set(ALL_KINDS)):
        raise SystemExit(f"no such kind: {', '.join(unknown)}; there are {', '.join(ALL_KINDS)}")
    form = QUICK if quick else FULL if full else USUAL
    form = replace(form, worlds=worlds or form.worlds)
    hierarchy = Hierarchy.detect()
    result: dict[str, Any] = {}
    with controllers_enabled(hierarchy), ExitStack() as stack:
        chosen = [kind for kind in KINDS if kind.name in kinds]
        if DOCKER in kinds:
            try:
                if reason := docker_missing():
                    raise EngineTrouble(reason)
                chosen.append(stack.enter_context(docker_kind()))
            except EngineTrouble as error:
                result["skipped"] = {DOCKER: str(error)}
        if chosen:
            faults = Faults(hierarchy, form, say, stack.enter_context(Stillness()))
            result["faults"] = faults.run(chosen)
            result["kernel_alone"] = faults.alone.row("kernel-alone")
        if hostile := [name for name in HOSTILE if name in kinds]:
            result["hostile"] = measure_hostile(hostile, form.hostile_s, say)
    return result


class Faults:
    """Runs them in several worlds side by side: one that waits costs no processor."""

    def __init__(self, hierarchy: Hierarchy, form: Form, say: Say, stillness: Stillness) -> None:
        self._hierarchy = hierarchy
        self._stillness = stillness
        self._form = form
        self._say = say
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self.alone = Tally()
        self._jobs: queue.SimpleQueue[Kind] = queue.SimpleQueue()
        self._errors: list[BaseException] = []
        self._over = threading.Event()
        # There is one engine, whose container one agent manages and one fault stops at a time.
        self._engine = threading.Lock()

    def run(self, kinds: Sequence[Kind]) -> list[dict[str, Any]]:
        """Those that take long come first, and none waits for a last one of them alone."""
        jobs = [kind for kind in kinds for _ in range(self._form.often if kind.often else self._form.seldom)]
        for job in sorted(jobs, key=lambda kind: (kind.plan == Plan(), not kind.long)):
            self._jobs.put(job)
        threads = [threading.Thread(target=self._work) for _ in range(min(self._form.worlds, len(jobs)))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:  # Ctrl-C and the like: each ends where it is, and cleans up
            self._errors.append(error)
            self._over.set()
            for thread in threads:
                thread.join()
            raise
        if self._errors:
            raise self._errors[0]
        return [self._tallies[kind.name].row(kind.name) for kind in kinds]

    def _work(self) -> None:
        try:
            job: Kind | None = self._next()
            while job is not None and not self._errors:
                job = self._in_one_world(job)
        except Interrupted:
            pass
        except BaseException as error:
            traceback.print_exc(file=sys.stderr)
            self._errors.append(error)

    def _next(self) -> Kind | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None

    def _in_one_world(self, job: Kind) -> Kind | None:
        """Do jobs in one world for as long as it is good for them; the one that needs another."""
        # In hundredths: the watcher's Ω is then the configured one, which has three decimals.
        worlds = self._form.worlds
        cores = CORES_ALONE if worlds == 1 else int(100 * CORES / worlds) / 100
        alone = self._engine if job.plan.docker else nullcontext()
        plan = replace(job.plan, cores=cores)
        with alone, running_world(self._hierarchy, plan, self._over, self._stillness) as world:
            self.alone.seen += world.alone
            self.alone.count += 1
            next_job: Kind | None = job
            while next_job is not None and next_job.plan == job.plan and not self._errors:
                fit = self._injure(world, next_job) and not next_job.spent
                next_job = self._next()
                if not fit:
                    break
            return next_job

    def _injure(self, world: World, kind: Kind) -> bool:
        """Whether the world is well again."""
        tally = self._tallies[kind.name]
        for app in world.apps.values():
            app.take()
        recovery, well = "", True
        try:
            healed = kind.injure(world, self._form.durations)
            tally.stood_still += len(healed.stood_still)
            took = world.wait_as_before(healed.at, healed.hosts)
            tally.recoveries.append(took)
            recovery = (
                f"as before in {took.well_s * 1000:.0f} ms, moving in {took.moved_s * 1000:.0f} ms; "
                f"the last was: {took.last}"
            )
        except NotRecovered as error:
            tally.lost += max(1, len(error.lost))
            recovery, well = str(error), False
        world.sleep(0.5)  # what comes late is this fault's, too
        seen = [app.take() for app in world.apps.values()]
        tally.seen += seen
        tally.count += 1
        self._say(f"{kind.name} {tally.count}: {recovery}")
        for example in [example for each in seen for example in each.examples]:
            self._say(f"  more than Ω: {example}")
        return well
