"""Every reader of foreign input, with what once broke one and with mutated valid input.

The coverage-guided fuzzer (`make fuzz`) runs the same targets a million times each.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escra_common.messages import FromAgent, FromController
from tests.fuzz.limits import MAX_BYTES, MAX_SECONDS, Meter, TooDear
from tests.fuzz.mutators import unpacked
from tests.fuzz.targets import CORPUS, TARGETS

_MUTATED, _ARBITRARY = 150, 50
_quick = settings(
    deadline=None,  # the meter has one, and repeats what passed it
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(params=TARGETS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def meter(name: str, tmp_path: Path) -> Meter:
    return Meter(TARGETS[name].make(tmp_path))


def test_the_corpus_is_taken_or_refused_as_declared(name: str, meter: Meter) -> None:
    seeds = TARGETS[name].seeds()
    assert seeds
    for file, data in seeds.items():
        try:
            meter(data)
        except Exception as error:
            error.add_note(f"input: {TARGETS[name].corpus / file}")
            raise


def test_mutated_examples(name: str, meter: Meter) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds().values())

    @settings(_quick, max_examples=_MUTATED)
    @given(st.sampled_from(seeds), st.randoms(use_true_random=False), st.integers(1, 3))
    def check(data: bytes, random: Random, times: int) -> None:
        for _ in range(times):
            data = target.mutate(data, random)
        meter(data)

    check()


def test_arbitrary_bytes(name: str, meter: Meter) -> None:
    heads = sorted({data[:1] for data in TARGETS[name].seeds().values()})

    @settings(_quick, max_examples=_ARBITRARY)
    @given(st.sampled_from(heads), st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    def check(head: bytes, rest: bytes) -> None:
        meter(head + rest)

    check()


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 100_000


def test_every_message_has_an_example() -> None:
    """A new kind of message without one would hardly be fuzzed."""
    kinds = {*get_args(FromAgent), *get_args(FromController)}
    bodies = [body for data in TARGETS["messages"].seeds().values() for body in unpacked(data[1:])]
    assert {kind.__struct_config__.tag for kind in kinds} <= {
        body[0] for body in bodies if isinstance(body, list)
    }


def test_the_meter_notices_what_is_slow() -> None:
    # Slept, not computed: a fast machine would compute it in less than the limit.
    meter = Meter(lambda data: time.sleep(MAX_SECONDS * 1.5 if data else 0))
    meter(b"")
    with pytest.raises(TooDear, match="ms, each of 5 times"):
        meter(b"x")


def test_the_meter_forgives_a_delay_that_does_not_come_again() -> None:
    delays = [MAX_SECONDS * 1.5]
    meter = Meter(lambda data: time.sleep(delays.pop() if delays else 0))
    meter(b"")
    assert not delays


def test_the_meter_forgives_the_time_that_others_had_the_processor() -> None:
    def work(data: bytes) -> None:
        end = time.thread_time() + (MAX_SECONDS * 0.7 if data else 0)
        while time.thread_time() < end:
            pass

    meter, processors = Meter(work), os.sched_getaffinity(0)
    meter(b"")
    try:
        os.sched_setaffinity(0, {min(processors)})
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:  # on the same one
            try:
                meter(b"x")
            finally:
                other.kill()
    finally:
        os.sched_setaffinity(0, processors)


def test_the_meter_notices_memory_that_was_given_back() -> None:
    meter = Meter(lambda data: print(len(bytearray(b"x") * (len(data) << 20))))
    meter(b"x")
    with pytest.raises(TooDear, match="MiB of memory"):
        meter(bytes((MAX_BYTES >> 20) * 3))
