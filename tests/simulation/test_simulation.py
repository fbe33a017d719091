"""The promises under a virtual clock and a network that does everything networks do (see README)."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.simulation import edges
from tests.simulation.__main__ import explain, run_all
from tests.simulation.planted import PLANTS, planted
from tests.simulation.scenario import make
from tests.simulation.shrink import kind, shrink
from tests.simulation.world import World

SEEDS = int(os.environ.get("ESCRA_SEEDS", "2000"))
JOBS = 2


@pytest.fixture
def simulated() -> Iterator[None]:
    """The daemons' modules lead into the simulation, for as long as the test runs."""
    with edges.installed():
        yield


def run(seed: int) -> World:
    world = World(make(seed))
    world.run()
    return world


def test_every_promise_holds_for_every_seed() -> None:
    print(f"seeds 0 to {SEEDS - 1}")
    failed = [result for result in run_all(range(SEEDS), JOBS) if result.broken]
    if failed:
        with edges.installed():
            pytest.fail(f"{len(failed)} of {SEEDS} seeds failed; the first:\n{explain(failed[0])}")


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    with planted(name):
        found = next((seed for seed in PLANTS[name].seeds() if run(seed).broken), None)
    assert found is not None, f"no seed found that {PLANTS[name].breaks}"
    assert not run(found).broken, "it was the fault that broke the promise"


@pytest.mark.usefixtures("simulated")
def test_a_failing_run_is_shrunk_to_what_it_takes() -> None:
    with planted("host-forgotten"):
        scenario, broken = next((make(s), b) for s in range(50) if (b := run(s).broken))
        small = shrink(scenario, broken, lambda scenario: World(scenario).run())
        assert len(small.steps) < len(scenario.steps) / 2
        assert kind(World(small).run()) == kind(broken)


@pytest.mark.parametrize("seed", [3, 58])
def test_a_seed_replays_byte_for_byte(seed: int) -> None:
    """Also in another process, where hashes and addresses are others."""
    program = (
        "from tests.simulation import edges; edges.install(); "
        "from tests.simulation.__main__ import run_seed; "
        f"print(run_seed({seed}).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": salt},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for salt in ("1", "2", "77")
    }
    assert len(digests) == 1


@pytest.mark.usefixtures("simulated")
def test_a_run_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    run(5)
    assert threading.active_count() == threads
