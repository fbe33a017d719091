"""What a unit's file says, and when it is written: no systemd, no clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_agent.unitproperties import (
    EVERY_S,
    HEADROOM,
    OLD_S,
    STEP,
    Properties,
    UnitPlan,
    parse,
    properties,
    render,
    step_above,
    unit_of,
)
from escra_common.messages import CpuLimit, MemoryLimit

MIB = 1 << 20
BEFORE = CpuLimit(20_000, 100_000)
periods = st.sampled_from([1_000, 5_000, 33_000, 100_000, 250_000, 1_000_000])
cpus = st.builds(CpuLimit, st.integers(1_000, 10**9), periods)


def say(
    milli: int | None = 500, size: int | None = 64 * MIB, *, banded: bool = True, original: CpuLimit = BEFORE
) -> Properties:
    cpu = None if milli is None else CpuLimit(milli * 100, 100_000)
    return properties(cpu, MemoryLimit(size), original, MemoryLimit(None), banded=banded)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/docker-0123.scope", "docker-0123.scope"),
        ("/a.slice/a-b.slice", "a-b.slice"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/_cpu.service", "cpu.service"),
        ("/docker/0123", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", None),
        ("/system.slice/docker-1.scope/init.scope", None),
        ("/system.slice/a b.service", None),
        ("/system.slice/..service/x", None),
        ("/system.slice", "system.slice"),
        ("/", None),
    ],
)
def test_the_unit_of_a_cgroup(path: str, unit: str | None) -> None:
    assert unit_of(path) == unit


def test_the_file_of_a_container() -> None:
    lines = render("docker-1.scope", say(473)).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "[Scope]",
        "CPUQuota=47.30%",
        "CPUQuotaPeriodSec=100000us",
        f"MemoryHigh={step_above(64 * MIB)}",
        f"MemoryMax={step_above(64 * MIB) + int(step_above(64 * MIB) * 0.03)}",
    ]


@given(cpus, st.none() | st.integers(MIB, 1 << 45), st.booleans())
def test_what_is_written_is_read_again(cpu: CpuLimit, size: int | None, banded: bool) -> None:
    said = properties(cpu, MemoryLimit(size), cpu, MemoryLimit(size), banded=banded)
    assert parse(render("a.service", said)) == said


@pytest.mark.parametrize(
    "text", ["", "# record: {", "# record: \ud800", "[Service]\nCPUQuota=1%\n", "# record: []"]
)
def test_no_file_of_ours_is_no_record(text: str) -> None:
    assert parse(text) is None


@given(cpus)
def test_cpu_lands_at_the_limit_or_a_hundredth_of_a_percent_below(cpu: CpuLimit) -> None:
    landed = properties(cpu, None, BEFORE, None, banded=True).landed_cpu()
    assert landed is not None
    assert landed.quota_usec is not None
    assert cpu.quota_usec is not None
    assert landed.period_usec == cpu.period_usec
    least = max(1_000, cpu.quota_usec - cpu.period_usec / 10_000 - 1)
    # Near the least quota there is no finer number that systemd takes.
    assert least <= landed.quota_usec <= max(cpu.quota_usec, 1_000 + cpu.period_usec / 10_000)


@given(st.integers(4096, 1 << 49), st.booleans())
def test_memory_lands_above_the_limit_and_not_far(limit_bytes: int, banded: bool) -> None:
    said = say(size=limit_bytes, banded=banded)
    assert said.max_bytes is not None
    assert said.max_bytes >= limit_bytes * HEADROOM
    assert said.max_bytes <= max(
        2 * MIB, limit_bytes * HEADROOM * STEP * (1.04 if limit_bytes > 64 * MIB else 1.25)
    )
    if banded:
        assert said.high_bytes is not None
        assert limit_bytes * HEADROOM <= said.high_bytes < said.max_bytes


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(10, 4000), st.integers(MIB, 1 << 34)), max_size=60))
def test_no_reload_lands_below_the_memory_in_force(steps: list[tuple[float, int, int]]) -> None:
    plan, now, written = UnitPlan(), 0.0, 0
    for wait_s, milli, size in steps:
        now += wait_s
        wish = say(milli, size)
        if plan.due(wish, now):
            plan.say(wish, now)
            written += 1
        assert plan.said is not None
        assert plan.said.max_bytes is not None
        assert plan.said.max_bytes > size


def test_cpu_is_said_when_it_moved_and_not_too_often() -> None:
    plan = UnitPlan()
    assert plan.due(say(500), 0.0)
    plan.say(say(500), 0.0)
    assert not plan.due(say(500), OLD_S * 2)
    assert not plan.due(say(560), EVERY_S - 0.1)
    assert plan.due(say(560), EVERY_S)
    assert not plan.due(say(540), OLD_S - 0.1)
    assert plan.due(say(540), OLD_S)


def test_memory_is_said_at_once_when_it_grows_and_later_when_it_shrinks() -> None:
    plan = UnitPlan()
    plan.say(say(), 0.0)
    assert not plan.due(say(size=70 * MIB), 0.1), "still in the same step"
    assert plan.due(say(size=90 * MIB), 0.1)
    assert not plan.due(say(size=40 * MIB), EVERY_S - 0.1)
    assert plan.due(say(size=40 * MIB), EVERY_S)


def test_what_could_not_be_written_is_due_again() -> None:
    plan = UnitPlan()
    plan.say(say(), 0.0)
    plan.forget()
    assert plan.due(say(), 0.1)


def test_the_original_behind_a_limit_that_systemd_kept() -> None:
    said = say(473)
    assert said.original_behind(CpuLimit(47_300, 100_000)) == BEFORE
    assert said.original_behind(CpuLimit(47_300, 50_000)) is None
    assert said.original_behind(CpuLimit(50_000, 100_000)) is None
    assert said.max_bytes is not None
    assert said.original_memory_behind(MemoryLimit(said.max_bytes // 4096 * 4096)) == MemoryLimit(None)
    assert said.original_memory_behind(MemoryLimit(64 * MIB)) is None
    assert say(None, None).original_behind(BEFORE) is None
