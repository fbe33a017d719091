"""``escra replay``: a recording under other rules."""

from collections.abc import Sequence
from pathlib import Path

import click

from escra_common.helptext import examples


@click.command(
    epilog=examples(
        "escra replay shop.rec",
        "escra replay shop.rec --policy escra --policy static",
        "escra replay shop.rec --set upsilon=0.5 --cpu 2",
    )
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help="escra, static ...; repeat to compare."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="upsilon=0.5, memory.margin=0.2 ..."
)
@click.option("--cpu", metavar="CORES", help="Another limit of the application: 4, 1.5 or 1500m.")
@click.option("--memory", metavar="SIZE", help="Another limit of the application: 2GiB or 512MiB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with units in the keys.")
def replay(
    file: Path,
    policies: Sequence[str],
    changes: Sequence[str],
    cpu: str | None,
    memory: str | None,
    as_json: bool,
) -> None:
    """What would have happened in the recording FILE under other rules?

    Runs what was recorded through the engine that runs in production, beside what really happened.  The same
    file and options print the same, always.

    \b
    What it can say: whether the work that was done would have fitted into other
    limits, what these would have been, and where memory would have run out.
    What it cannot say: what would have been done with more.  Work that was held
    back in the recording is not in it.  Work that a variant holds back is not
    done later, orders take no time, and file cache is given up without cost.
    """
    # What only this needs is not loaded for a table.
    from escra_controller.replayed import show

    show(file, policies, changes, cpu, memory, as_json=as_json)
