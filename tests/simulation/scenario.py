"""What happens in one run: a small world and a list of steps, both made from a seed.

A step names what it does by words, so that any step can be left out: one that finds nothing to do
does nothing.  That is what lets a failing run be shrunk.
"""

from dataclasses import dataclass
from random import Random

from escra_common.messages import Fallback
from escra_controller.absence import LEASE_MARGIN_S

MIB = 1 << 20
# The faults of a run stop here, and so long after the start they begin.
CALM_S, FAULTS_S = 1.5, 10.0
# One seed in so many is about leases: it takes long to see one end.
LEASES, LEASES_EVERY, LEASE_S = "leases", 40, 12
# Of those, so many have a host that follows another leader meanwhile.
RIVALS_EVERY = 3
APART = (("h1", "c0"), ("h2", "c1"))
# One in so many is about bursts: there is more CPU than anybody uses, and agents are left some of it.
BURSTS, BURSTS_EVERY, PLENTY = "bursts", 10, 2
# Of those about leaders, so many have a host that the standby has never met.
STRANGERS_EVERY = 3

Arg = str | int | float


@dataclass(frozen=True, slots=True)
class Step:
    """``at`` in seconds; ``what`` is the name of a method of World."""

    at: float
    what: str
    args: tuple[Arg, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:7.3f} s  {self.what} {' '.join(map(str, self.args))}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """``hosts`` maps a name to whether it has cgroup v2; ``apps`` to millicores and bytes.

    ``faults_s`` is when all faults have been, ``fallback`` what agents do after ``LEASE_S`` alone.
    """

    seed: int
    theme: str
    hosts: dict[str, bool]
    apps: dict[str, tuple[int, int]]
    steps: tuple[Step, ...]
    standby: bool = False
    burst: float = 0.0
    fallback: Fallback = "hold"
    faults_s: float = FAULTS_S


# What goes wrong in a run; some faults show only where much of one kind comes together.  Empty is anything.
THEMES: dict[str, tuple[str, ...]] = {
    "anything": (),
    "more of anything": (),
    "leaders": (
        *("kill_controller", "kill_controller", "stop_controller", "partition"),
        *("kill_agent", "kill_agent", "reset"),
    ),
    "restarts": (
        *("kill_controller", "kill_controller", "kill_agent", "crash_host", "partition"),
        *("stop_agent", "fill_store", "resize"),
    ),
    "memory": ("resize", "partition", "stop_agent", "slow", "end", "restart"),
    "wire": ("frames", "frames", "frames", "restart", "restart", "end", "relabel", "slow", "reset"),
}


def make(seed: int) -> Scenario:
    rng = Random(seed)
    return _leases(seed, rng) if seed % LEASES_EVERY == LEASES_EVERY - 1 else _mixed(seed, rng)


def _leases(seed: int, rng: Random) -> Scenario:
    """One host is cut off until its lease and the controller's margin are over, or nearly."""
    steps: list[Step] = []
    containers: list[str] = []
    for host in ("h1", "h2"):
        for _ in range(rng.choice((1, 2))):
            containers.append(f"c{len(containers) + 1}")
            steps.append(_start(rng, round(rng.uniform(0, 0.3), 3), host, containers[-1], ["shop"]))
    cut_at = round(rng.uniform(4, 6), 3)
    over = cut_at + LEASE_S + LEASE_MARGIN_S
    end = round(over + rng.uniform(-6, 10), 3)
    # It holds more than its floors when it is cut off, and the others want what it held.
    steps += [Step(cut_at - 2, "demand", ("c1", 1500)), Step(over - 1, "demand", (containers[-1], 4000))]
    steps.append(Step(cut_at, "partition", ("h1", rng.choice(("both", "in", "out")), end - cut_at)))
    works = rng.randint(8, 14)
    steps += [_work(rng, round(rng.uniform(1, end), 3), containers, memory=0.3) for _ in range(works)]
    for _ in range(rng.randint(0, 3)):
        # An agent is never away for as long as the margin: its unit starts it again.
        short = round(rng.uniform(0.5, 20), 3)
        what = rng.choice(("kill_agent", "kill_agent", "stop_agent"))
        steps.append(Step(round(rng.uniform(cut_at, end - 20), 3), what, ("h1", short)))
    if rng.random() < 0.2:
        steps.append(Step(round(rng.uniform(cut_at, end), 3), "kill_controller", ("c0", 0.5)))
    rival = seed // LEASES_EVERY % RIVALS_EVERY == 0
    if rival:
        steps = [step for step in steps if step.what != "partition"]
        steps += [Step(cut_at - 0.5, "sever", (host, away, end - cut_at)) for host, away in APART]
        steps.append(Step(cut_at, "promote", ("c1",)))
    return Scenario(
        seed,
        LEASES,
        {"h1": rng.random() < 0.5, "h2": rng.random() < 0.5},
        {"shop": (rng.choice((600, 1000)), rng.choice((256, 512)) * MIB)},
        tuple(sorted(steps, key=lambda step: step.at)),
        standby=rival,
        fallback=rng.choice(("floor", "restore")),
        faults_s=end,
    )


def _mixed(seed: int, rng: Random) -> Scenario:
    theme = rng.choice(list(THEMES))
    bursts = seed % BURSTS_EVERY == 3
    hosts = {f"h{n}": rng.random() < 0.5 for n in range(1, rng.choice((2, 2, 3)) + 1)}
    names = ["shop"] if rng.random() < 0.6 else ["shop", "blog"]
    # Where it is about memory, there is little of it.
    sizes = (128, 192, 256) if theme == "memory" else (384, 512, 768)
    apps = {name: (rng.choice((600, 1000, 2000)), rng.choice(sizes) * MIB) for name in names}
    steps: list[Step] = []
    stranger = theme == "leaders" and seed % STRANGERS_EVERY == 0
    if theme == "leaders":
        # Soon most agents follow it, and the old leader is back.
        at = round(rng.uniform(CALM_S, 4), 3)
        if not stranger:
            steps += [Step(at, "promote", ("c1",)), Step(at + 0.1, "kill_controller", ("c0", 0.5))]
    containers: list[str] = []
    for host in hosts:
        for _ in range(rng.choice((1, 2, 2, 3))):
            containers.append(f"c{len(containers) + 1}")
            steps.append(_start(rng, round(rng.uniform(0, 0.3), 3), host, containers[-1], names))
    if stranger:
        steps += _stranger(seed, list(hosts), containers, at)
    for _ in range(rng.randint(6, 14)):
        at = round(rng.uniform(0.3, FAULTS_S), 3)
        steps += [_work(rng, at, containers, memory=0.8 if theme == "memory" else 0.4)]
    for _ in range(rng.randint(2, 7)):
        at = round(rng.uniform(CALM_S, FAULTS_S), 3)
        trouble = _trouble(rng, at, THEMES[theme], list(hosts), containers, names)
        steps += [] if stranger else [trouble]
    if bursts:
        steps += _bursts(seed, containers)
        apps = {name: (PLENTY * cpu, memory) for name, (cpu, memory) in apps.items()}
    in_order = tuple(sorted(steps, key=lambda step: step.at))
    standby = theme == "leaders" or rng.random() < 0.2
    burst = rng.choice((0.0, 0.0, 0.2))
    if bursts:
        theme, burst = BURSTS, 0.0  # with one there is no headroom
    return Scenario(seed, theme, hosts, apps, in_order, standby, burst)


def _bursts(seed: int, containers: list[str]) -> list[Step]:
    """All of them, one after the other: some work, and for a moment more of it."""
    rng = Random(seed ^ 0xB0257)
    steps: list[Step] = []
    for name in containers:
        at = 0.5
        while (at := round(at + rng.uniform(0.5, 1.5), 3)) < FAULTS_S:
            low = rng.choice((100, 200, 400))
            steps.append(Step(at, "demand", (name, low)))
            at = round(at + rng.uniform(1, 2), 3)
            steps.append(Step(at, "demand", (name, rng.choice((2, 3, 6)) * low)))
    return steps


def _stranger(seed: int, hosts: list[str], containers: list[str], promoted_at: float) -> list[Step]:
    """The standby never meets one host, which stays with the old leader; the others lose that one.

    They lose it before they can have heard of each other, or later.  All have much to do, before and after.
    """
    rng = Random(seed ^ 0x57A9)
    strange, *others = rng.sample(hosts, len(hosts))
    early = rng.random() < 0.5
    if early:
        cut_at = round(promoted_at - rng.uniform(0, 1), 3)
    else:
        promoted_at = round(promoted_at + 2.5, 3)
        cut_at = round(promoted_at + rng.uniform(0.3, 0.6), 3)
    steps = [Step(0.0, "sever", (strange, "c1", FAULTS_S)), Step(promoted_at, "promote", ("c1",))]
    steps += [Step(at, "demand", (name, 4000)) for name in containers for at in (0.5, promoted_at + 1.5)]
    for host in others:
        steps.append(Step(cut_at, "sever", (host, "c0", FAULTS_S)))
        if not early:
            steps.append(Step(cut_at, "reset", (host,)))
    return steps


def _start(rng: Random, at: float, host: str, name: str, apps: list[str]) -> Step:
    quota = rng.choice((0, 0, 0, 37_100, 81_300))
    limit = rng.choice((0, 0, 0, 96 * MIB))
    demand = rng.choice((0, 50, 300, 900, 2500))
    used = rng.choice((4, 10, 30)) * MIB
    return Step(at, "start", (host, name, rng.choice(apps), quota, limit, demand, used))


def _work(rng: Random, at: float, containers: list[str], *, memory: float) -> Step:
    """A share of ``memory`` of the steps are about memory, the others about CPU."""
    name, about = rng.choice(containers), rng.random()
    if about < memory / 3:
        return Step(at, "read_files", (name, rng.choice((0, 20, 60)) * MIB))
    if about < memory:
        size, rate = rng.choice((4, 20, 50, 90, 200)), rng.choice((10, 50, 100))
        return Step(at, "grow", (name, size * MIB, rate * MIB))
    return Step(at, "demand", (name, rng.choice((0, 30, 200, 700, 1500, 4000))))


def _trouble(
    rng: Random,
    at: float,
    theme: tuple[str, ...],
    hosts: list[str],
    containers: list[str],
    apps: list[str],
) -> Step:
    controller = rng.choice(("c0", "c1", "c1") if theme == THEMES["leaders"] else ("c0", "c0", "c1"))
    host, name, app = rng.choice(hosts), rng.choice(containers), rng.choice(apps)
    short, long = round(rng.uniform(0.05, 1.5), 3), round(rng.uniform(0.5, 5), 3)
    steps = {
        "kill_agent": (host, long),
        "stop_agent": (host, long),
        "crash_host": (host, long),
        "kill_controller": (controller, rng.choice((short, long))),
        "stop_controller": (controller, long),
        "fill_store": (controller, long),
        "promote": ("c1",),
        "partition": (host, rng.choice(("both", "in", "out")), long),
        "reset": (host,),
        "slow": (host, rng.choice((0.05, 0.3, 1.0)), long),
        "frames": (rng.choice(("lose", "repeat", "swap")), rng.choice((0.05, 0.3)), long),
        "fill_disk": (host, long),
        "set_wall_clock": (host, rng.choice((-3600, 3600))),
        "end": (name,),
        "restart": (name, rng.choice(("graceful", "killed"))),
        "relabel": (name, rng.choice(("auto", "observe", "off")), app),
        "update": (name, rng.choice((0, 50_000)), rng.choice((0, 128)) * MIB),
        "foreign_cpu": (name, rng.choice((0, 5_000, 400_000))),
        "foreign_memory": (name, rng.choice((0, 16, 512)) * MIB),
        "refuse": (name, short),
        "resize": (app, rng.choice((400, 800, 1500, 3000)), rng.choice((256, 512, 1024)) * MIB),
        "forget_app": (app, long),
    }
    what = rng.choice(theme or tuple(steps))
    return Step(at, what, steps[what])
