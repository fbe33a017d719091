"""``python -m benchmarks NAME [--json]``."""

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

NAMES = (
    *("reaction", "honesty", "oom", "faults", "scrape", "agent", "wire", "watching", "compare"),
    *("engine", "controller"),
)

# Where it is not the one of that name.
MODULES = {"compare": "compare.comparison"}
# Beside --quick and --json.
TAKES = {
    "oom": {"full", "episodes", "rates"},
    "faults": {"full", "kinds", "worlds"},
    "engine": {"agents", "huge", "profile"},
    "controller": {"agents", "huge"},
    "compare": {
        *("out", "seconds", "repetitions", "policies", "workloads", "applications"),
        *("docker", "serverless"),
    },
}


def _listed(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def _end(number: int, frame: object) -> None:
    """As Ctrl-C does, once: what was made is taken away again."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, progress on stderr.")
@click.option("--quick", is_flag=True, help="Fewer events: to see that it works, not to quote.")
@click.option("--full", is_flag=True, help="oom: as --episodes 336; faults: 100 of each.")
@click.option("--episodes", type=click.IntRange(1), help="oom: growth episodes for each rate.")
@click.option(
    "--rate", "rates", type=click.IntRange(1, 2048), multiple=True, help="oom: in MiB/s; may repeat."
)
@click.option("--kind", "kinds", multiple=True, help="faults: only this one; may repeat.")
@click.option("--worlds", type=click.IntRange(1, 6), help="faults: so many side by side.")
@click.option("--agents", type=click.IntRange(10, 1000), help="engine, controller: of 100 containers each.")
@click.option("--huge", is_flag=True, help="engine, controller: all containers are of one application.")
@click.option("--profile", is_flag=True, help="engine: print where the time goes.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="compare: the folder for results."
)
@click.option("--seconds", type=click.FloatRange(1, 3600), help="compare: of each repetition.")
@click.option("--repetitions", type=click.IntRange(1, 100), help="compare: of each cell.")
@click.option("--serverless", is_flag=True, help="compare: functions in short-lived containers instead.")
@click.option("--policies", callback=_listed, help="compare: only these, with commas between them.")
@click.option("--workloads", callback=_listed, help="compare: only these.")
@click.option("--applications", callback=_listed, help="compare: only these.")
@click.option("--docker", is_flag=True, help="compare: real software in Docker containers.")
def main(
    name: str,
    as_json: bool,
    quick: bool,
    full: bool,
    episodes: int | None,
    rates: tuple[int, ...],
    kinds: tuple[str, ...],
    **others: Any,
) -> None:
    """Measure one thing on this machine; run nothing else meanwhile."""
    given = {"full": full, "episodes": episodes, "rates": rates, "kinds": kinds} | others
    options: dict[str, Any] = {option: value for option, value in given.items() if value}
    if strange := options.keys() - TAKES.get(name, frozenset()):
        raise click.UsageError(f"{name} does not take {', '.join(sorted(strange))}")
    if name == "oom" and options.pop("full", False):
        options["episodes"] = 336  # more than 1,000 in all
    if name == "compare" and "out" not in options:
        raise click.UsageError("compare needs --out, the folder for its results")
    signal.signal(signal.SIGTERM, _end)
    module = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}")
    result: dict[str, Any] = module.measure(
        quick=quick, say=lambda line: click.echo(line, err=True), **options
    )
    json.dump(result, sys.stdout, indent=None if as_json else 2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
