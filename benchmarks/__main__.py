"""``python -m benchmarks NAME [--json]``."""

import importlib
import json
import sys
from typing import Any

import click

NAMES = ("reaction", "honesty", "oom")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, progress on stderr.")
@click.option("--quick", is_flag=True, help="Fewer events: to see that it works, not to quote.")
@click.option("--full", is_flag=True, help="oom: as --episodes 336, more than 1,000 in all.")
@click.option("--episodes", type=click.IntRange(1), help="oom: growth episodes for each rate.")
@click.option(
    "--rate", "rates", type=click.IntRange(1, 2048), multiple=True, help="oom: in MiB/s; may repeat."
)
def main(
    name: str, as_json: bool, quick: bool, full: bool, episodes: int | None, rates: tuple[int, ...]
) -> None:
    """Measure one thing on this machine; run nothing else meanwhile."""
    chosen = {"episodes": 336 if full else episodes, "rates": rates}
    options = {option: value for option, value in chosen.items() if value}
    if options and name != "oom":
        raise click.UsageError(f"{name} takes --quick and --json only")
    module = importlib.import_module(f"benchmarks.{name}")
    result: dict[str, Any] = module.measure(
        quick=quick, say=lambda line: click.echo(line, err=True), **options
    )
    json.dump(result, sys.stdout, indent=None if as_json else 2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
