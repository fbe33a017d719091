"""A real agent whose controller is somebody else's: nothing is starved and nothing is opened."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.caps import LEAST_MARGIN_BYTES, WRITES_AT_ONCE, WRITES_PER_S
from escra_agent.hierarchy import Hierarchy
from escra_common.messages import CpuOrder, MemoryOrder, Release, SetLimits, SetMemory
from escra_controller.state import limit_millicores
from tests.hostile_controller import HostileController
from tests.kernel_cgroups import KernelCgroup, cores_used, throwaway
from tests.memory_agent import MIB, Eater, limit_file

pytestmark = pytest.mark.kernel

NAMES = ("capped", "other")
CAPS = """
[caps]
cpu_min = 0.1
cpu_max = 1
cpu_total = 1.5
memory_min = "32MiB"
memory_max = "256MiB"
memory_total = "384MiB"
"""


@dataclass(slots=True)
class Scene:
    groups: dict[str, KernelCgroup]
    pair: Pair
    controller: HostileController

    def cpu(self, name: str, milli: int, *, burst: int = 0, headroom: int = 0) -> tuple[int | None, str]:
        """What is in force after this order, and why it is not what was ordered."""
        order = CpuOrder(self.key(name), self.controller.rev(), milli, burst, False, headroom)
        ack = self.controller.answer(SetLimits([order]))
        assert self.groups[name].open().read_limit() == ack.in_force
        quota = ack.in_force.quota_usec
        return None if quota is None else quota * 1000 // ack.in_force.period_usec, ack.error

    def memory(self, name: str, size: int, margin: int = 0) -> tuple[int | None, str]:
        order = MemoryOrder(self.key(name), self.controller.rev(), size, margin)
        ack = self.controller.memory_answer(SetMemory([order]))
        if ack.in_force.max_bytes is not None:
            assert int(limit_file(self.groups[name]).read_text()) == ack.in_force.max_bytes
        return ack.in_force.max_bytes, ack.error

    def settles(self, name: str) -> int:
        """The highest limit (millicores) in the next 1.5 s."""
        cgroup, end = self.groups[name].open(), time.monotonic() + 1.5
        limits = []
        while time.monotonic() < end:
            self.controller.hear(0.01)
            limits.append(limit_millicores(cgroup.read_limit()) or 0)
        cgroup.close()
        return max(limits)

    def key(self, name: str) -> int:
        return self.controller.containers[name].key


@pytest.fixture
def scene(hierarchy: Hierarchy) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        groups = {name: stack.enter_context(throwaway(hierarchy)) for name in NAMES}
        pair = stack.enter_context(running_pair("", "", start=False))
        controller = stack.enter_context(HostileController(pair.port))
        entries = "".join(
            f'[[cgroup]]\npath = "{group.path}"\napp = "shop"\nname = "{name}"\n'
            for name, group in groups.items()
        )
        pair.write_config(
            "agent", f"lending = false\n[docker]\nenabled = false\n{CAPS}{entries}cpu_max = 0.8\n"
        )
        pair.start("agent")
        controller.meet(*NAMES)
        yield Scene(groups, pair, controller)
        pair.stop("agent")


def test_cpu_orders_outside_are_refused_as_a_whole(scene: Scene) -> None:
    assert scene.cpu("capped", 500) == (500, "")
    for milli, why in ((50, "below this host's [caps] cpu_min"), (1001, "above this host's [caps] cpu_max")):
        in_force, error = scene.cpu("capped", milli)
        assert in_force == 500
        assert why in error
        assert f"{milli / 1000:g} cores" in error
    in_force, error = scene.cpu("other", 900)
    assert in_force is None or error == "", "towards the bounds from no limit"
    assert scene.cpu("other", 700) == (700, "")
    assert "above its own escra.cpu.max" in scene.cpu("other", 850)[1]
    assert scene.cpu("capped", 100) == (100, "")


def test_the_sum_stays_below_the_total_and_the_controller_is_told_what_is_left(scene: Scene) -> None:
    assert scene.cpu("capped", 900) == (900, "")
    assert scene.cpu("other", 300) == (300, "")
    in_force, error = scene.cpu("other", 700)
    assert in_force == 300
    assert "0.7 cores of cpu beside 0.9 cores of others is above this host's [caps] cpu_total" in error
    scene.controller.hear_until(lambda: scene.controller.containers["other"].cap_milli == 600)
    assert scene.cpu("other", 600) == (600, "")
    assert scene.cpu("capped", 400) == (400, "")
    # More is left now: told within a second, and then it may be had.
    scene.controller.hear_until(lambda: scene.controller.containers["other"].cap_milli == 1000, 3.0)
    assert scene.cpu("other", 800) == (800, "")
    in_force, error = scene.cpu("capped", 600, burst=600)
    assert in_force == 400
    assert "cpu_total" in error, "the burst counts"


def test_headroom_beyond_the_caps_is_none(scene: Scene) -> None:
    """Of the container, or of the host: nobody answers the alarms here."""
    scene.groups["capped"].busy()
    assert scene.cpu("other", 800) == (800, "")
    for headroom in (700, 350):
        assert scene.cpu("capped", 400, headroom=headroom) == (400, "")
        assert scene.settles("capped") == 400
    assert scene.cpu("capped", 400, headroom=250) == (400, "")
    assert scene.settles("capped") == 650


def test_memory_orders_outside_are_refused_as_a_whole(scene: Scene) -> None:
    assert scene.memory("capped", 128 * MIB) == (128 * MIB, "")
    for size, why in ((8 * MIB, "below this host's [caps] memory_min"), (300 * MIB, "memory_max")):
        in_force, error = scene.memory("capped", size)
        assert in_force == 128 * MIB
        assert why in error
    assert scene.memory("other", 200 * MIB) == (200 * MIB, "")
    in_force, error = scene.memory("other", 257 * MIB)
    assert (in_force, "memory_max" in error) == (200 * MIB, True)
    in_force, error = scene.memory("capped", 200 * MIB)
    assert (in_force, "memory_total" in error) == (128 * MIB, True)


def test_no_margin_of_theirs_cuts_into_what_is_used_or_prevents_a_cut(scene: Scene, tmp_path: Path) -> None:
    eater = Eater(scene.groups["capped"], tmp_path / "eater")
    eater.want(100 * MIB)
    scene.pair.wait_until(lambda: eater.has >= 100 * MIB, "eaten")
    assert scene.memory("capped", 250 * MIB) == (250 * MIB, "")
    in_force, _ = scene.memory("capped", 101 * MIB, 0)
    assert in_force is not None
    used = int((limit_file(scene.groups["capped"]).parent / usage_file(scene)).read_text())
    assert in_force >= used + LEAST_MARGIN_BYTES - MIB
    assert eater.process.poll() is None
    assert scene.memory("other", 250 * MIB) == (250 * MIB, "")
    assert scene.memory("other", 64 * MIB, 1 << 50) == (250 * MIB, ""), "that leaves 256 MiB above its use"
    assert scene.memory("other", 64 * MIB, 16 * MIB) == (64 * MIB, "")


def usage_file(scene: Scene) -> str:
    v2 = limit_file(scene.groups["capped"]).name == "memory.max"
    return "memory.current" if v2 else "memory.usage_in_bytes"


def test_a_flood_of_orders_does_not_open_the_quota(scene: Scene) -> None:
    """Every write hands out a fresh quota (K3)."""
    group = scene.groups["capped"]
    assert scene.cpu("capped", 200) == (200, "")
    group.busy()
    key, sent = scene.key("capped"), 0

    def flood() -> None:
        nonlocal sent
        for step in range(5):
            order = CpuOrder(key, scene.controller.rev(), 200 + (sent + step) % 2)
            scene.controller.say(SetLimits([order]))
        sent += 5
        scene.controller.hear(0)

    cgroup = group.open()
    used = cores_used(cgroup, 4.0, flood)
    cgroup.close()
    refused = sum("orders a second" in ack.error for ack in scene.controller.acks)
    written = len(scene.controller.acks) - refused
    print(f"{sent} orders in 4 s, {written} written, {used:.3f} cores used of 0.2")
    assert refused > sent / 3
    assert written <= WRITES_AT_ONCE + WRITES_PER_S * 4.5
    log = (scene.pair.folder / "agent.log").read_text().splitlines()
    assert sum("orders a second" in line for line in log) == 1, "once per container and cause"


def test_releases_in_a_row_give_the_original_back_once(scene: Scene) -> None:
    assert scene.cpu("capped", 300) == (300, "")
    scene.controller.acks.clear()
    for _ in range(500):
        last = Release(scene.key("capped"), scene.controller.rev())
        scene.controller.say(last)
    scene.controller.hear_until(lambda: any(ack.rev == last.rev for ack in scene.controller.acks))
    assert scene.groups["capped"].open().read_limit().quota_usec is None
