"""``python -m benchmarks NAME [--json]``."""

import importlib
import json
import sys
from typing import Any

import click

NAMES = ("reaction", "honesty")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, progress on stderr.")
@click.option("--quick", is_flag=True, help="Fewer events: to see that it works, not to quote.")
def main(name: str, as_json: bool, quick: bool) -> None:
    """Measure one thing on this machine; run nothing else meanwhile."""
    module = importlib.import_module(f"benchmarks.{name}")
    result: dict[str, Any] = module.measure(quick=quick, say=lambda line: click.echo(line, err=True))
    json.dump(result, sys.stdout, indent=None if as_json else 2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
