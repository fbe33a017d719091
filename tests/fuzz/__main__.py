"""``make fuzz``: each target with so many inputs, coverage-guided, one after the other.

Exit status 1 if one of them found something; the input is then in the target's corpus, and stays there:
the tests run all of it.
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from tests.fuzz.targets import TARGETS

_ROOT = Path(__file__).parents[2]
# In memory where possible: some targets write their input to files.
_SHM = Path("/dev/shm")
_COVERED = re.compile(r"\bcov: (\d+)")
_HEADINGS = (
    f"{'target':<10} {'inputs':>9} {'s':>6} {'inputs/s':>9} {'edges':>6} {'slowest ms':>11} {'MiB grown':>10}"
)


@click.command()
@click.argument("names", nargs=-1, metavar="[TARGET]...")
@click.option("--inputs", default=1_000_000, show_default=True, help="How many for each target.")
@click.option("--seed", default=None, type=click.IntRange(1, 2**31), help="By default another each time.")
def main(names: tuple[str, ...], inputs: int, seed: int | None) -> None:
    """Fuzz the TARGETs, or all of them."""
    if unknown := [name for name in names if name not in TARGETS]:
        raise click.UsageError(f"no target {unknown[0]!r}; there are: {', '.join(TARGETS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its files and its child are cleared away
    seed = seed or int(time.time()) % 2**31
    click.echo(f"seed {seed}\n{_HEADINGS}")
    faults = sum(_fuzz(name, inputs, seed) for name in names or TARGETS)
    sys.exit(1 if faults else 0)


def _fuzz(name: str, inputs: int, seed: int) -> bool:
    """Whether something was found."""
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(inputs), str(seed)]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None) as folder,
        Path(folder, "errors").open("w+") as errors,
    ):
        done = subprocess.run([*command, folder], cwd=_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.seek(0)
        said = errors.read()
    seconds = time.monotonic() - began
    edges = max(map(int, _COVERED.findall(said)), default=0)
    result = _result(done.stdout)
    count = result.get("inputs", 0)
    click.echo(
        f"{name:<10} {count:>9} {seconds:>6.0f} {count / seconds:>9.0f} {edges:>6} "
        f"{result.get('slowest_ms', 0):>11} {result.get('grown_mib', 0):>10}"
    )
    if done.returncode:
        click.echo(said[-4000:], err=True)
        click.echo(f"{name}: {result.get('fault', 'ended early')}; see {TARGETS[name].corpus}", err=True)
    return done.returncode != 0


def _result(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    return found


if __name__ == "__main__":
    main()
