"""The policies, as what is done to an application's cgroups before its load begins.

``escra`` and the peers run Escra's own agent and controller with another rule; memory follows Escra's law
under all of them.  ``static-1x`` gives each container what the profile says at Ω, the others that many
times as much: nobody changes it, nothing runs beside it.  ``weights`` has no limits, only shares after the
profile.  ``oracle`` puts one limit of Ω around the whole application: inside, the kernel shares freely and
at once.  It knows one host only, and is what a perfect policy could do.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.compare.applications import APP, Application
from benchmarks.kernel_memory import KernelMemory
from benchmarks.pair import Pair, running_pair
from escra_controller.policy.vpa import recommendation
from tests.kernel_cgroups import FoundCgroup
from tests.kernel_cgroups import limit as cores_limit

STATIC = {"static-0.75x": 0.75, "static-1x": 1.0, "static-1.5x": 1.5}
# What the configuration says beside the name.  Autopilot's steps are a second, VPA's its own minute: the
# comparison in Escra's paper did not wait five minutes for Autopilot either.
MANAGED = {
    "escra": "",
    "vpa": "",
    "autopilot": "period_s = 1.0\n",
    "koordinator": "",
    "rubik": "",
    "autothrottle": "",
}
POLICIES = ("escra", *STATIC, *(name for name in MANAGED if name != "escra"), "weights", "oracle")
# Rules that never go below the limit a container came with need some of Ω to go above it.
OWN_LIMITS = {"koordinator": 0.75, "rubik": 0.75}
# Less than the default of 0.05: ten services would have half of Ω as floors.
CPU_MIN = 0.02
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Profile:
    """What an application uses without limits under one load, by service; Ω makes 70 % of both."""

    rate: float
    used_cores: Mapping[str, float]
    samples_milli: Mapping[str, list[float]]
    peak_bytes: Mapping[str, int]
    omega_cores: float
    used_of_omega: float

    @property
    def omega_bytes(self) -> int:
        return int(sum(self.peak_bytes.values()) / self.used_of_omega)

    def cores(self, service: str, factor: float = 1.0) -> float:
        """Its part of Ω by what it uses, ``factor`` times."""
        total = sum(self.used_cores.values())
        return max(0.01, factor * self.omega_cores * self.used_cores[service] / total)

    def memory_bytes(self, service: str, factor: float = 1.0) -> int:
        return int(factor * self.peak_bytes[service] / self.used_of_omega)


@contextmanager
def regime(policy: str, application: Application, profile: Profile) -> Iterator[Pair | None]:
    """In force within the block; the daemons where there are some."""
    if policy in STATIC:
        _fix(application, profile, STATIC[policy])
        yield None
    elif policy == "weights":
        for name, group in application.containers.items():
            _weigh(group, profile.cores(name) / profile.omega_cores)
        yield None
    elif policy == "oracle":
        _limit(application.parent, profile.omega_cores, profile.omega_bytes)
        yield None
    else:
        _fix(application, profile, OWN_LIMITS.get(policy, 1.0), recommended=policy == "vpa")
        with _managed(policy, application, profile) as pair:
            yield pair


def omega_of(policy: str, profile: Profile) -> tuple[float, int] | None:
    """Cores and bytes that nothing may exceed; None where nothing is promised."""
    if policy == "weights":
        return None
    if policy in STATIC:
        # Each limit is rounded to what the kernel takes, and none is below a hundredth of a core.
        return profile.omega_cores * STATIC[policy] + 0.01, int(profile.omega_bytes * STATIC[policy]) + MIB
    return profile.omega_cores, profile.omega_bytes


@contextmanager
def _managed(policy: str, application: Application, profile: Profile) -> Iterator[Pair]:
    controller = (
        f'grace_s = 0\n[policy]\nname = "{policy}"\n{MANAGED[policy]}[apps.{APP}]\n'
        f'cpu = {profile.omega_cores}\ncpu_min = {CPU_MIN}\nmemory = "{profile.omega_bytes}B"\n'
    )
    with running_pair(controller, application.agent_toml, nice=-10) as pair:
        pair.wait_managed(*application.containers)
        yield pair


def _fix(application: Application, profile: Profile, factor: float, *, recommended: bool = False) -> None:
    for name, group in application.containers.items():
        cores = profile.cores(name, factor)
        if recommended:
            cores = recommendation(profile.samples_milli[name]) / 1000
        _limit(group, cores, profile.memory_bytes(name, factor))


def _limit(group: FoundCgroup, cores: float, size: int) -> None:
    opened = group.open()
    opened.write_limit(cores_limit(cores))
    opened.close()
    KernelMemory(group.hierarchy, group.path).set_limit(size)


def _weigh(group: FoundCgroup, share: float) -> None:
    """v1: 1024 is usual; v2: 100."""
    v2 = group.hierarchy.version == "v2"
    name, usual, least = ("cpu.weight", 100, 1) if v2 else ("cpu.shares", 1024, 2)
    (group.cpu / name).write_text(str(max(least, round(usual * 10 * share))))
