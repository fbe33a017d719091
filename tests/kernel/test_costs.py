"""What looking at containers costs: the benchmarks `agent` and `wire`, made short."""

import pytest

from benchmarks import agent, wire

pytestmark = pytest.mark.kernel


def test_the_agent_costs_little_more_than_its_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZES": (60,), "TURNS": 2, "TURN_S": 1.5, "WARM_UP_S": 4.0}.items():
        monkeypatch.setattr(agent, name, value)
    (size,) = agent.measure(quick=False, say=print)["sizes"]
    print(size)
    assert size["containers"] == 60
    # Before, when every file was read in every tick, it was 16; alone on a machine it is less than 4.
    assert 0 < size["ratio"] < 10
    assert size["rss_mib"] < 60


def test_idle_containers_say_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PHASES", {"idle": None})
    monkeypatch.setattr(wire, "SETTLE_S", 3.0)
    plain, encrypted = wire.measure(quick=True, say=print)["bytes_per_container_s"]
    print(plain, encrypted)
    assert not plain["tls"]
    assert encrypted["tls"]
    for row in (plain, encrypted):
        assert 0 < row["on_the_wire"] < wire.ORIGINAL_BYTES_PER_S / 10
