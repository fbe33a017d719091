"""What must hold, judged by the simulated kernels and never by the books of the controller.

At every write of a limit: the limits in force of an application sum to at most Ω (promise 1).  When tasks
are killed for want of memory: whether that had to be (promise 2).  When all is calm again: everybody is
managed, nothing is pending, the books are right, and what is not managed has its own limits back.
"""

from typing import TYPE_CHECKING, Literal

from escra_controller.ledger import Ledger
from escra_controller.state import App, MemberKey
from tests.simulation.kernel import MIB, PAGE, Group, charge

if TYPE_CHECKING:
    from tests.simulation.world import World

Resource = Literal["cpu", "memory"]
# Below use and this, no limit stays, and so much of a pool may be too little to share.
MARGIN_BYTES = 2 * MIB - PAGE
ROOM_BYTES = 40 * MIB
# An order is answered within this time once all is calm.
PENDING_S = 2.5
# Where agents lend, a limit may be but what it leaves of a period, which ends by then also where nobody works
# any more (K5).
REST_S = 0.3
# Who has only just found a controller, or changes to another, may find a container in need.
TURNED_S = 1.0
# Memory that was set free is known, taken back and granted within this time.
FREED_S = 2.0


class Promises:
    """``bounds`` is Ω, or more while what was in force when Ω fell is worked off."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.bounds: dict[tuple[str, Resource], float] = {}
        self._freed_at: dict[str, float] = {}
        self._pending: dict[tuple[Resource, MemberKey, int], float] = {}

    # ---- promise 1 -----------------------------------------------------------------

    def omega(self, app: str, cpu: int, memory: int) -> None:
        """Ω is this from now on; what was in force may take a while to fall."""
        for resource, amount in (("cpu", cpu), ("memory", memory)):
            key: tuple[str, Resource] = (app, "cpu" if resource == "cpu" else "memory")
            self.bounds[key] = max(amount, self.bounds.get(key, 0))

    def moved(self, app: str, group: Group) -> None:
        """Somebody gave a container to another application, with its limits and the orders on their way."""
        for resource in ("cpu", "memory"):
            key: tuple[str, Resource] = (app, "cpu" if resource == "cpu" else "memory")
            self.bounds[key] += self.bounds.get((group.app, key[1]), 0)

    def adopted(self, group: Group) -> None:
        """What a stranger wrote while no agent was there: the next one takes it for what is in force."""
        if group.cpu_ours is not None and group.cpu != group.cpu_ours and group.app in self._world.omega:
            self.bounds[group.app, "cpu"] += min(charge(group.cpu), 10_000)
        if group.memory_ours is not None and group.memory.max_bytes != group.memory_ours.max_bytes:
            self.bounds[group.app, "memory"] += group.memory.max_bytes or 1 << 30

    def limited(self, group: Group) -> None:
        """Called after every write of a limit in any kernel."""
        world, app = self._world, group.app
        if app not in world.omega:
            return
        for resource, held in (("cpu", self.held(app)), ("memory", self.held_bytes(app))):
            key: tuple[str, Resource] = (app, "cpu" if resource == "cpu" else "memory")
            omega = world.omega[app][0 if resource == "cpu" else 1]
            if held > self.bounds[key] + 0.001:
                world.fault(
                    f"promise 1: {app} holds {held:g} {'millicores' if resource == 'cpu' else 'bytes'} "
                    f"of {omega:g}"
                    + (f" (falling from {self.bounds[key]:g})" if self.bounds[key] > omega else "")
                )
            elif self.bounds[key] > omega:
                self.bounds[key] = max(omega, min(self.bounds[key], max(held, self._counted(*key))))

    def held(self, app: str) -> float:
        return sum(group.cpu_charge() for group in self._world.groups() if group.app == app)

    def held_bytes(self, app: str) -> int:
        return sum(group.memory_charge() for group in self._world.groups() if group.app == app)

    def _counted(self, app: str, resource: Resource) -> float:
        engine = self._world.engine()
        known = engine.apps.get(app) if engine else None
        if engine is None or known is None:
            return float("inf")
        connected = [host for host in engine.hosts.values() if host.connected]
        if len(connected) < len(self._world.machines):
            return float("inf")
        for group in self._world.groups():
            member = engine.members.get(MemberKey(group.host, group.key))
            if group.app == app and member is not None and member.info.app != app:
                return float("inf")  # nobody has told of its move yet: orders of the old one are under way
        return (known.ledger if resource == "cpu" else known.memory).counted

    # ---- promise 2 -----------------------------------------------------------------

    def freed(self, app: str) -> None:
        """Some of its memory is not in use any more: who was refused just before was refused rightly."""
        self._freed_at[app] = self._world.clockwork.now

    def killed(self, group: Group) -> None:
        """A task was killed: with nothing wrong anywhere, there must have been no memory for it."""
        world, engine = self._world, self._world.engine()
        app = engine.apps.get(group.app) if engine else None
        # What another one leaves behind is shared out within a second or two.
        since = world.clockwork.now - self._freed_at.get(group.app, float("-inf"))
        self.freed(group.app)
        if since < FREED_S or world.clockwork.now - world.machines[group.host].turned_at < TURNED_S:
            return
        if app is None or not world.calm() or group.memory_ours is None:
            return
        member = app.members.get(MemberKey(group.host, group.key))
        if member is None or member.memory.limit is None or app.memory.counted > app.spec.memory:
            return
        others = [g for g in world.groups() if g is not group and g.app == group.app and g.memory_ours]
        least = sum(max(int(1.1 * g.anon), g.anon + 8 * MIB, 16 * MIB) for g in others)
        room = app.spec.memory - least - group.anon
        if group.anon < app.memory_ceiling(member) - ROOM_BYTES and room > ROOM_BYTES:
            world.fault(
                f"promise 2: {group.name} was killed at {group.anon} bytes, and {group.app} had or could "
                f"have {room} more"
            )

    # ---- at rest -------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """What is not as it should be when all is calm; empty is well."""
        engine, world = self._world.engine(), self._world
        if engine is None:
            return ["no controller leads"]
        said = [
            f"promise 4: {name} is not connected"
            for name in world.machines
            if name not in engine.hosts or not engine.hosts[name].connected
        ]
        for group in world.groups():
            app = engine.apps.get(group.app)
            if group.labels.get("escra.mode") in (None, "auto") and app is not None and not app.removed:
                said += self._managed(app, group)
            else:
                said += self._given_back(group)
        keys = {MemberKey(group.host, group.key) for group in world.groups()}
        for app in engine.apps.values():
            for resource, ledger in (("cpu", app.ledger), ("memory", app.memory)):
                said += [
                    f"{key} is counted for {resource} and does not exist" for key in ledger if key not in keys
                ]
            # No limit goes below its floor; a floor has its burst beside it.
            floors = sum(app.floor(m) for m in app.members.values() if m.state == "managed")
            omega = max(app.spec.cpu, floors * (1 + world.scenario.burst))
            held = self.held(app.spec.name)
            if held > omega + 0.001:
                said.append(f"promise 1: {app.spec.name} still holds {held:g} of {omega}")
        return said

    def _managed(self, app: App, group: Group) -> list[str]:
        key = MemberKey(group.host, group.key)
        said = self._booked("cpu", app.ledger, key, group) + self._booked("memory", app.memory, key, group)
        limit = group.memory.max_bytes
        tight = limit is not None and limit < min(group.anon + MARGIN_BYTES, app.spec.memory)
        if tight and group.memory_ours is not None and app.memory.free > ROOM_BYTES:
            said.append(f"promise 3: {group.name} has {limit} with {group.anon} in use")
        if group.stalled:
            said.append(f"promise 2: {group.name} waits for memory without end")
        return said

    def _booked(
        self, resource: Resource, ledger: Ledger[MemberKey], key: MemberKey, group: Group
    ) -> list[str]:
        if key not in ledger:
            # Who asks for more than is left stays outside; it must then be as it came.
            room = ledger.free > (100 if resource == "cpu" else group.anon + ROOM_BYTES)
            ours = group.cpu_ours if resource == "cpu" else group.memory_ours
            if ours is not None:
                return [f"promise 4: {group.name} holds {ours} ({resource}) that nobody counts"]
            return (
                [f"promise 4: {group.name} is not managed ({resource}), with {ledger.free} free"]
                if room
                else []
            )
        entry, now = ledger[key], self._world.clockwork.now
        if entry.pending:
            since = self._pending.setdefault((resource, key, entry.rev), now)
            late = now - since > PENDING_S
            return [f"promise 4: an order for {group.name} ({resource}) is never answered"] if late else []
        held = -(-charge(group.cpu) // 1) if resource == "cpu" else group.memory.max_bytes
        if (
            resource == "cpu"
            and self._world.machines[group.host].lending
            and held is not None
            and held < entry.held
            and now - group.cpu_written_at < REST_S
        ):
            return []
        if held is None or abs(held - entry.held) > (1 if resource == "cpu" else 0):
            return [f"the books say {entry.held} ({resource}) for {group.name}, its kernel {held}"]
        return []

    def _given_back(self, group: Group) -> list[str]:
        said = []
        # An agent knows of a `docker update` only if it lived then, and its disk took it.
        faultless = len(self._world.machines[group.host].processes) == 1
        cpu = [group.cpu_original, *([] if faultless else group.cpu_former)]
        memory = [group.memory_original, *([] if faultless else group.memory_former)]
        if group.cpu not in cpu:
            said.append(f"promise 4: {group.name} has {group.cpu}, and came with {group.cpu_original}")
        fits = all(had.max_bytes is None or group.anon + 4 * MIB < had.max_bytes for had in memory)
        if group.memory not in memory and fits:
            said.append(f"promise 4: {group.name} has {group.memory}, and came with {group.memory_original}")
        if group.armed:
            said.append(f"promise 4: the OOM killer of {group.name} is still off")
        return said
