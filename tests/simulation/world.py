"""One run: the hosts, the network between them, and what a scenario does to them."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from random import Random

from escra_common.messages import CpuLimit, MemoryLimit
from escra_controller.engine import Engine
from escra_controller.leadership import LOST_GRACE_S
from tests.simulation import edges
from tests.simulation.clockwork import Clock, Clockwork
from tests.simulation.hosts import ControllerHost, Machine
from tests.simulation.kernel import MIB, PERIOD_USEC, Group, Notices
from tests.simulation.network import Network
from tests.simulation.promises import Promises
from tests.simulation.scenario import Scenario, Step

# After the last trouble everything must be well within this time, and then stay so.
RECOVERY_S = 32.0
STEADY_S = 1.0
LOOK_S = 0.25
# A kill so soon after a trouble anywhere may have been its doing.
CALM_AFTER_S = 6.0
EVENTS_KEPT = 60


class World:
    """``broken`` is the promise that did not hold, "" while all do; ``digest`` is of all that happened."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clockwork = Clockwork(Random(scenario.seed ^ 0x5EED))
        self.clockwork.stop_early = lambda: bool(self.broken)
        edges.inhabit(lambda: self.clockwork.running)
        self.network = Network(self.clockwork, self._heard)
        self.promises = Promises(self)
        self.notices = Notices(self._limited, self._killed, self.fault)
        self.broken = ""
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self.omega: dict[str, tuple[int, int]] = {}
        self._apps: dict[str, tuple[int, int]] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self._troubled_until = float("-inf")
        self._undo: list[Callable[[], None]] = []
        self._next_key = 0
        self._ended: list[Group] = []
        names = ["c0", "c1"] if scenario.standby else ["c0"]
        self.controllers = {
            name: ControllerHost(self, name, self._clock(), self._accepted, scenario, standby=name != "c0")
            for name in names
        }
        self.machines = {
            name: Machine(self, name, self._clock(), names, banded=v2, lending=scenario.seed % 2 == 1)
            for name, v2 in scenario.hosts.items()
        }

    def run(self) -> str:
        """What went wrong, "" if nothing did."""
        self._set_omega(dict(self.scenario.apps))
        for host in self._hosts():
            host.start()
        for step in self.scenario.steps:
            self.clockwork.at(step.at, self._do, step)
        self.clockwork.run(self.scenario.faults_s + 0.5)
        self.heal()
        self._await_calm()
        self._bury()
        return self.broken

    def _await_calm(self) -> None:
        deadline = self.clockwork.now + RECOVERY_S
        well_since: float | None = None
        complaints: list[str] = []
        while not self.broken and self.clockwork.now < deadline:
            self.clockwork.run(self.clockwork.now + LOOK_S)
            self._look_for_failures()
            complaints = self.promises.complaints()
            if complaints:
                well_since = None
            elif well_since is None:
                well_since = self.clockwork.now
            elif self.clockwork.now - well_since >= STEADY_S:
                return
        if not self.broken:
            self.fault("; ".join(complaints) or "it never stays well")

    def _look_for_failures(self) -> None:
        for host in self._hosts():
            for error in host.failures():
                self.fault(f"the daemon on {host.name} broke: {error!r}")

    def _bury(self) -> None:
        self.clockwork.bury([process for host in self._hosts() for process in host.processes])

    def _hosts(self) -> Iterator[ControllerHost | Machine]:
        yield from self.controllers.values()
        yield from self.machines.values()

    # ---- for those who check -------------------------------------------------------

    def groups(self) -> Iterator[Group]:
        for machine in self.machines.values():
            yield from machine.groups.values()

    def engine(self) -> Engine | None:
        """That of the controller who leads; of two, the one that was promoted last."""
        leading = [host for host in self.controllers.values() if host.leads]
        return max(leading, key=lambda host: host.epoch).engine if leading else None

    def calm(self) -> bool:
        return self.clockwork.now > self._troubled_until

    def say(self, who: str, text: str) -> None:
        line = f"{self.clockwork.now:9.4f} {who}: {text}"
        self.events.append(line)
        self._hash.update(line.encode())

    def fault(self, text: str) -> None:
        if not self.broken and not self.clockwork.ended:
            self.broken = text
            self.say("world", text)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def _heard(self, who: str, source: str, data: bytes) -> None:
        self._hash.update(b"%.6f" % self.clockwork.now)
        self._hash.update(data)

    def _limited(self, group: Group) -> None:
        cpu = group.cpu.quota_usec
        self.say(group.host, f"{group.name} has {cpu} us, {group.memory.max_bytes} bytes")
        self.promises.limited(group)

    def _killed(self, group: Group) -> None:
        self.say(group.host, f"{group.name} was killed at {group.anon} bytes")
        self.promises.killed(group)

    # ---- steps ---------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        self.say("step", f"{step.what} {' '.join(map(str, step.args))}")
        getattr(self, "step_" + step.what)(*step.args)
        self._look_for_failures()

    def _trouble(self, lasts_s: float, undo: Callable[[], None]) -> None:
        """Something is wrong for a while, or until ``heal``."""
        self._troubled_until = max(self._troubled_until, self.clockwork.now + lasts_s + CALM_AFTER_S)
        self._undo.append(undo)
        self.clockwork.after(lasts_s, undo)

    def heal(self) -> None:
        """Everything that was broken works again; each remedy may be applied twice."""
        self.say("world", "everything is healed")
        for undo in self._undo:
            undo()
        self.network.unblock()

    def _find(self, name: str) -> Group | None:
        return next((group for group in self.groups() if group.name == name), None)

    def _clock(self) -> Clock:
        rng = self.clockwork.rng
        return Clock(1 + rng.uniform(-300, 300) * 1e-6, rng.uniform(0, 1e5), 1.8e9 + rng.uniform(-5, 5))

    def step_start(
        self, host: str, name: str, app: str, quota: int, limit: int, demand: int, used: int
    ) -> None:
        machine = self.machines[host]
        if machine.on and self._find(name) is None:
            self._next_key += 1
            group = Group(
                self.clockwork,
                self.notices,
                host,
                self._next_key,
                f"{name}-id",
                name,
                {"escra.app": app},
                machine.banded,
                CpuLimit(quota or None, PERIOD_USEC),
                MemoryLimit(limit or None),
                demand,
                used,
                want=used,
            )
            machine.run_container(group)

    def step_end(self, name: str) -> None:
        if group := self._find(name):
            self._ended.append(group)
            self.promises.freed(group.app)
            self.machines[group.host].end_container(group)

    def step_restart(self, name: str, how: str) -> None:
        if group := self._find(name):
            self.step_end(name)
            cpu, memory = group.cpu_original.quota_usec or 0, group.memory_original.max_bytes or 0
            again = (group.host, name, group.app, cpu, memory, group.demand, 8 * MIB)
            self.clockwork.after(0.0 if how == "killed" else 0.4, self.step_start, *again)

    def step_demand(self, name: str, milli: int) -> None:
        if group := self._find(name):
            group.set_demand(milli)

    def step_grow(self, name: str, want: int, rate: int) -> None:
        if group := self._find(name):
            if want < group.anon:
                self.promises.freed(group.app)
            group.grow(want, rate)

    def step_read_files(self, name: str, cache: int) -> None:
        if group := self._find(name):
            group.read_files(cache)

    def step_relabel(self, name: str, mode: str, app: str) -> None:
        if group := self._find(name):
            self._trouble(0, lambda: None)
            if app != group.app:
                self.promises.moved(app, group)
            labels = {"escra.app": app, "escra.mode": mode}
            machine = self.machines[group.host]
            machine.update_container(group, labels, group.cpu_original, group.memory_original)

    def step_update(self, name: str, quota: int, memory: int) -> None:
        if (group := self._find(name)) and (memory == 0 or group.used + 4 * MIB < memory):
            self._trouble(0, lambda: None)
            cpu, limit = CpuLimit(quota or None, PERIOD_USEC), MemoryLimit(memory or None)
            self.machines[group.host].update_container(group, dict(group.labels), cpu, limit)
            self._if_unwatched(group.host)

    def step_foreign_cpu(self, name: str, quota: int) -> None:
        if (group := self._find(name)) and group.cpu_ours is not None:
            group.write_cpu(CpuLimit(quota or None, PERIOD_USEC), ours=False)
            self._if_unwatched(group.host)

    def step_foreign_memory(self, name: str, limit: int) -> None:
        if (group := self._find(name)) and group.memory_ours and (limit == 0 or group.used + 4 * MIB < limit):
            self._trouble(0, lambda: None)
            group.write_memory(MemoryLimit(limit or None), ours=False)
            self._if_unwatched(group.host)

    def _if_unwatched(self, host: str) -> None:
        machine = self.machines[host]
        for group in machine.groups.values():
            if not machine.knows(group):
                self.promises.adopted(group)

    def step_refuse(self, name: str, lasts_s: float) -> None:
        if group := self._find(name):
            group.refuses = True
            self._trouble(lasts_s, lambda: setattr(group, "refuses", False))

    def step_kill_agent(self, host: str, down_s: float) -> None:
        self.machines[host].kill()
        self._if_unwatched(host)
        self._trouble(down_s, self.machines[host].start)

    def step_stop_agent(self, host: str, lasts_s: float) -> None:
        self.machines[host].stop()
        self._trouble(lasts_s, self.machines[host].go_on)

    def step_crash_host(self, host: str, down_s: float) -> None:
        self.machines[host].crash()
        self._trouble(down_s, self.machines[host].boot)

    def step_kill_controller(self, name: str, down_s: float) -> None:
        if controller := self.controllers.get(name):
            controller.kill()
            self._trouble(down_s, controller.start)

    def step_stop_controller(self, name: str, lasts_s: float) -> None:
        if controller := self.controllers.get(name):
            controller.stop()
            self._trouble(lasts_s, controller.go_on)

    def step_promote(self, name: str) -> None:
        if controller := self.controllers.get(name):
            controller.promote()
            self._trouble(0, lambda: None)

    def step_partition(self, host: str, way: str, lasts_s: float) -> None:
        pairs = [pair for pair, name in (((host, "*"), "out"), (("*", host), "in")) if way in (name, "both")]
        for pair in pairs:
            self.network.block(*pair)
        self._trouble(lasts_s, lambda: self.network.unblock(*pairs))

    def step_sever(self, one: str, other: str, lasts_s: float) -> None:
        pairs = [(one, other), (other, one)]
        for pair in pairs:
            self.network.block(*pair)
        self._trouble(lasts_s, lambda: self.network.unblock(*pairs))

    def step_reset(self, host: str) -> None:
        self.network.reset(host)
        self._trouble(0, lambda: None)

    def step_slow(self, host: str, extra_s: float, lasts_s: float) -> None:
        self.network.slow[host] = extra_s
        self._trouble(lasts_s, lambda: self.network.slow.update({host: 0.0}))

    def step_frames(self, fault: str, share: float, lasts_s: float) -> None:
        setattr(self.network.weather, fault, share)
        self._trouble(lasts_s, lambda: setattr(self.network.weather, fault, 0.0))

    def step_fill_store(self, name: str, lasts_s: float) -> None:
        if controller := self.controllers.get(name):
            controller.state.full = True
            self._trouble(lasts_s, lambda: setattr(controller.state, "full", False))
            # Should it lose its memory meanwhile, it gives nothing for a while.
            self._troubled_until += LOST_GRACE_S

    def step_fill_disk(self, host: str, lasts_s: float) -> None:
        machine = self.machines[host]
        machine.disk_full = True
        self._trouble(lasts_s, lambda: setattr(machine, "disk_full", False))

    def step_set_wall_clock(self, host: str, by_s: float) -> None:
        self.machines[host].clock.wall += by_s

    def step_resize(self, app: str, cpu: int, memory: int) -> None:
        if app in self._apps:
            self._trouble(0, lambda: None)
            self._set_omega(self._apps | {app: (cpu, memory)})

    def step_forget_app(self, app: str, lasts_s: float) -> None:
        if app in self._apps:
            spec = self._apps[app]
            self._set_omega({name: size for name, size in self._apps.items() if name != app})
            self._trouble(lasts_s, lambda: self._remember_app(app, spec))

    def _remember_app(self, app: str, spec: tuple[int, int]) -> None:
        if app not in self._apps:
            self._set_omega(self._apps | {app: spec})

    def _set_omega(self, apps: dict[str, tuple[int, int]]) -> None:
        """Write the configuration, the same for all controllers."""
        self._apps = apps
        for app, (cpu, memory) in apps.items():
            # Both hold until it has been read, and perhaps refused.
            before = self.omega.get(app, (0, 0))
            self.omega[app] = max(cpu, before[0]), max(memory, before[1])
            self.promises.omega(app, *self.omega[app])
        for controller in self.controllers.values():
            controller.configure(apps)

    def _accepted(self) -> None:
        """A controller follows what it has read."""
        for app in self.omega:
            sizes = [c.apps[app] for c in self.controllers.values() if c.may_lead and app in c.apps]
            if sizes:
                self.omega[app] = max(cpu for cpu, _ in sizes), max(memory for _, memory in sizes)
                self.promises.omega(app, *self.omega[app])
