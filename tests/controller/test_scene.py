"""The demo's scene, its arithmetic and its texts; and the whole of it on the simulated host."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_controller.demo import picture, virtual
from escra_controller.demo.scene import (
    Frame,
    Phase,
    Reading,
    Scene,
    Work,
    scene_for,
    throttled_ratio,
    used_cores,
)

SCENE = Scene()


def frame(at_s: float, limit: int = 500, usage: int = 0, periods: int = 0, throttled: int = 0) -> Frame:
    reading = Reading(limit, usage, periods, throttled, throttled * 1000)
    return Frame(at_s, dict.fromkeys(SCENE.names, reading))


@given(cpus=st.sampled_from([1, 2, 64]), at_s=st.floats(0, 1000))
def test_the_load_fits_the_limit_but_its_busiest_not_the_fixed_share(cpus: int, at_s: float) -> None:
    scene = scene_for(cpus)
    wanted = [scene.demand(index, at_s) * 1000 for index in range(3)]
    assert sum(wanted) < 0.8 * scene.omega_milli
    assert all(scene.calm_milli - 1 <= each <= scene.busy_milli + 1 for each in wanted)
    if at_s % scene.shift_s > scene.ramp_s:
        busiest = wanted.index(max(wanted))
        assert scene.names[busiest] == scene.busy(at_s)
        assert wanted[busiest] > 1.5 * scene.fixed_milli


def test_everyone_is_busy_in_turn() -> None:
    assert [SCENE.busy(slot * SCENE.shift_s + 1) for slot in range(4)] == ["web", "api", "jobs", "web"]


def test_load_moves_over_without_a_jump() -> None:
    steps = [SCENE.demand(0, 4.0 + n * 0.01) for n in range(300)]
    assert max(abs(a - b) for a, b in pairwise(steps)) < 0.02


def test_shares_and_uses() -> None:
    first = frame(0.0, periods=10, throttled=5)
    last = frame(2.0, usage=500_000, periods=30, throttled=10)
    phase = Phase("x", [first, last])
    assert phase.throttled_share == 0.25
    assert phase.throttled_s == pytest.approx(0.015)
    assert used_cores(first, last, "web") == 0.25
    assert throttled_ratio(first, last, "web") == 0.25
    assert throttled_ratio(last, last, "web") == 0.0


def test_a_request_given_up_was_not_answered_in_time() -> None:
    phase = Phase("x", work=Work(offered_s=2.0, done_s=1.0, waits_ms=[10, 50, 51, 300]))
    assert phase.answered_within(50) == 0.25
    assert Phase("x").answered_within(50) is None


def test_a_sum_above_the_limit_is_a_failure_however_short() -> None:
    fixed = Phase("fixed", [frame(0), frame(1, periods=10, throttled=9)])
    escra = Phase("escra", [frame(0), frame(0.5, limit=501), frame(1, periods=10)])
    assert not picture.held(SCENE, escra)
    assert "FAILED" in picture.summary(SCENE, fixed, escra)[-1]


def test_a_busy_machine_is_told_apart_from_a_bad_result() -> None:
    phase = Phase("x", [frame(0), frame(1, periods=10, throttled=3)])
    assert not any("Other work" in line for line in picture.summary(SCENE, phase, phase))
    phase.idle = 0.02
    assert any("Other work" in line for line in picture.summary(SCENE, phase, phase))


def test_no_improvement_is_a_failure() -> None:
    same = Phase("x", [frame(0), frame(1, periods=10, throttled=3)])
    assert "FAILED" in picture.verdict(SCENE, same, same)


def run(*, with_escra: bool, seconds: float = 20.0) -> Phase:
    return virtual.run_phase(SCENE, "Simulated", seconds, lambda phase: None, with_escra=with_escra, pace=0)


def test_on_the_simulated_host_escra_throttles_less_within_the_limit() -> None:
    fixed, escra = run(with_escra=False), run(with_escra=True)
    # Measured on real cgroups: 34 % of periods throttled, 67 % of the work done.
    assert fixed.throttled_share == pytest.approx(0.34, abs=0.03)
    assert fixed.work.done_s / fixed.work.offered_s == pytest.approx(0.67, abs=0.03)
    assert escra.throttled_share < 0.8 * fixed.throttled_share
    assert escra.work.done_s / escra.work.offered_s > 0.9
    assert escra.most_allocated_milli <= SCENE.omega_milli
    text = picture.summary(SCENE, fixed, escra, simulated=True)
    assert "simulated" in text[0]
    assert text[-1].startswith("Simulated: ")
    assert "FAILED" not in text[-1]


def test_the_same_run_twice_is_the_same() -> None:
    assert run(with_escra=True, seconds=8.0).frames == run(with_escra=True, seconds=8.0).frames


def test_everything_shown_fits_80_columns() -> None:
    escra = run(with_escra=True, seconds=8.0)
    lines = picture.live(SCENE, escra, 20.0) + picture.summary(SCENE, escra, escra, simulated=True)
    assert max(map(len, [*lines, picture.log_line(SCENE, escra)])) < 80


def test_ascii_where_the_terminal_knows_no_more() -> None:
    escra = run(with_escra=True, seconds=4.0)
    lines = picture.live(SCENE, escra, 20.0, ascii_only=True)
    lines += picture.summary(SCENE, escra, escra, ascii_only=True)
    assert "".join(lines).isascii()
