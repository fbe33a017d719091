"""What a container is found with, and what an earlier agent left of it."""

import time

from escra_agent.cgroupfs import Cgroup
from escra_agent.memoryplan import MemoryPlan
from escra_agent.memoryshape import Shape
from escra_agent.originals import Original
from escra_agent.planner import Plan
from escra_agent.tracked import Candidate, Tracked, TrackedMemory

LEFT_ALONE = "this agent leaves memory alone: [memory] enabled = false"
NOT_OURS = "its OOM killer was turned off by its owner, who has other plans for it"


def inspect(candidate: Candidate, cgroup: Cgroup, known: Original | None, *, manage_memory: bool) -> Tracked:
    """``known`` is what an earlier agent recorded: if the kernel holds another limit, we wrote it."""
    counters = cgroup.read(fresh=True)
    original = known.limit if known else counters.limit
    held = counters.limit if counters.limit != original else None
    cap, pinned = cgroup.cap_milli(), cgroup.pinned()
    memory = _inspect_memory(cgroup, known, manage_memory)
    return Tracked(candidate, cgroup, original, counters, Plan(held), cap, pinned, memory)


def _inspect_memory(cgroup: Cgroup, known: Original | None, manage: bool) -> TrackedMemory | None:
    group = cgroup.memory_group
    if group is None:
        return None
    reading = group.read()
    recorded = known.memory if known else None
    problem = group.problem() if manage else LEFT_ALONE
    if reading.armed and recorded:
        # Neither the earlier agent nor its guard could disarm it.
        group.disarm()
    elif reading.armed:
        problem = problem or NOT_OURS
    original = recorded or reading.limit
    held = reading.limit if reading.limit != original else None
    plan = MemoryPlan(cgroup.key, Shape(original, group.banded), held)
    now = time.monotonic()
    plan.saw(reading.used_bytes, now)
    plan.looked(group.cache_bytes(), now)
    return TrackedMemory(group, original, reading, plan, group.cap_bytes(), group.failures(), problem)
