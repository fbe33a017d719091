"""Which repetitions, in which order.  Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.compare.designs import BARE
from benchmarks.compare.regimes import POLICIES
from benchmarks.compare.schedules import WORKLOADS, Workload

# Of --quick: one application, one load, few and short repetitions.
QUICK_WORKLOADS: tuple[Workload, ...] = ("burst",)
QUICK_APPLICATIONS = ("shop",)


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``--quick`` leaves out is everything that is not in its defaults here."""

    policies: Sequence[str] = POLICIES
    workloads: Sequence[Workload] = WORKLOADS
    applications: Sequence[str] = field(default_factory=lambda: tuple(BARE))
    repetitions: int = 5
    seconds: float = 60.0

    @classmethod
    def quick(cls) -> "Plan":
        return cls(POLICIES, QUICK_WORKLOADS, QUICK_APPLICATIONS, repetitions=3, seconds=6.0)

    @property
    def profile_seconds(self) -> float:
        return min(20.0, self.seconds)

    @property
    def total(self) -> int:
        return len(self.policies) * len(self.workloads) * len(self.applications) * self.repetitions

    def check(self) -> None:
        """Raises SystemExit for a name that there is not."""
        full = Plan()
        for given, known in (
            (self.policies, full.policies),
            (self.workloads, full.workloads),
            (self.applications, full.applications),
        ):
            if strange := [name for name in given if name not in known]:
                raise SystemExit(f"there is no {', '.join(strange)}; there are {', '.join(known)}")

    def left_out(self) -> list[str]:
        """What a full run has and this has not."""
        full = Plan()
        said = [
            f"{kind} {', '.join(missing)}"
            for kind, missing in (
                ("policies", [name for name in full.policies if name not in self.policies]),
                ("workloads", [name for name in full.workloads if name not in self.workloads]),
                ("applications", [name for name in full.applications if name not in self.applications]),
            )
            if missing
        ]
        if self.repetitions < full.repetitions:
            said.append(f"{full.repetitions - self.repetitions} of {full.repetitions} repetitions")
        if self.seconds < full.seconds:
            said.append(f"{full.seconds - self.seconds:g} of {full.seconds:g} s of each repetition")
        return said


def order(policies: Sequence[str], repetitions: int, seed: int) -> Iterator[tuple[int, str]]:
    """Repetition and policy: all policies once, in another order each time, so that none is always first."""
    dice = random.Random(seed)
    for repetition in range(repetitions):
        shuffled = list(policies)
        dice.shuffle(shuffled)
        yield from ((repetition, policy) for policy in shuffled)
