"""``make simulate SEEDS=N``: many runs, each of its own seed, two processes.

A seed that fails is replayed with fewer and fewer steps; what is left of them is printed, with the last
things that happened.  ``--seed K`` runs just that one; ``--plant NAME`` plants a fault first, which
should be found.
"""

import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import click

from tests.simulation import edges
from tests.simulation.scenario import Scenario, make
from tests.simulation.shrink import shrink
from tests.simulation.world import World

CHUNK = 20


@dataclass(frozen=True, slots=True)
class Result:
    seed: int
    broken: str
    digest: str


def run_seed(seed: int) -> Result:
    world = World(make(seed))
    return Result(seed, world.run(), world.digest)


def run_steps(scenario: Scenario) -> str:
    return World(scenario).run()


def run_all(seeds: range, jobs: int) -> Iterator[Result]:
    """In order of the seeds."""
    if jobs == 1:
        edges.install()
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs, edges.install) as pool:
        yield from pool.imap(run_seed, seeds, CHUNK)


def explain(result: Result) -> str:
    """What broke, the steps that it takes, and what happened last."""
    edges.install()
    small = shrink(make(result.seed), result.broken, run_steps)
    world = World(small)
    broken = world.run()
    hosts = ", ".join(f"{name} (cgroup {'v2' if v2 else 'v1'})" for name, v2 in small.hosts.items())
    return "\n".join(
        [
            f"seed {result.seed}: {result.broken}",
            f"with {len(small.steps)} of {len(make(result.seed).steps)} steps: {broken}",
            f"hosts: {hosts}; applications (millicores, bytes): {small.apps}",
            *(f"  {step}" for step in small.steps),
            "the last things that happened:",
            *(f"  {line}" for line in world.events),
        ]
    )


@click.command()
@click.option("--seeds", default=200, help="How many runs.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--seed", default=None, type=int, help="Just this one.")
@click.option("--jobs", default=2, help="How many processes.")
@click.option("--keep-going", is_flag=True, help="Count failures rather than explain the first.")
def main(seeds: int, first: int, seed: int | None, jobs: int, keep_going: bool) -> None:
    began = time.monotonic()
    chosen = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    click.echo(f"seeds {chosen.start} to {chosen.stop - 1}")
    failed = []
    for result in run_all(chosen, 1 if seed is not None else jobs):
        if result.broken:
            failed.append(result)
            if not keep_going:
                click.echo(explain(result))
                sys.exit(1)
    for result in failed:
        click.echo(f"seed {result.seed}: {result.broken[:200]}")
    click.echo(f"{len(chosen) - len(failed)} of {len(chosen)} well, {time.monotonic() - began:.1f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
