"""A real controller with two hosts that only speak, for all tests of this folder."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from benchmarks.fleet import Fleet, Work, running_fleet
from benchmarks.pair import Pair, running_pair

APPS = '[apps.shop]\ncpu = 6\nmemory = "2GiB"\n[apps.jobs]\ncpu = 2\nmemory = "1GiB"\n'


@dataclass
class Scene:
    pair: Pair
    hosts: dict[str, list[Work]]
    fleet: Fleet


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """By CPU: checkout, nightly, web-2 (throttled), red; by memory: nightly, checkout, web-2, red."""
    hosts = {
        "alpha": [
            Work("checkout", "shop", 0.9, 180 << 20),
            # A name that would turn the terminal red.
            Work("red\x1b[31m", "shop", 0.3, 64 << 20),
        ],
        "beta": [
            Work("nightly", "jobs", 0.7, 300 << 20),
            Work("web-2", "shop", 0.5, 90 << 20, throttled=True),
        ],
    }
    with running_pair(APPS, "", start=False) as pair:
        pair.start("controller")
        pair.wait_until(lambda: bool(pair.ask("status")), "the controller answers")
        with running_fleet(pair.port, dict(hosts)) as fleet:
            pair.wait_until(lambda: pair.ask("status")["managed"] == 4, "all are managed")
            yield Scene(pair, hosts, fleet)
