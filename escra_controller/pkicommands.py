"""``escra-controller pki``: the private CA of agents and controllers, for people."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from escra_common.errors import EscraError
from escra_common.helptext import examples

if TYPE_CHECKING:
    from escra_controller.pki import Issued, Role

DEFAULT_FOLDER = Path("/etc/escra/pki")
MISSING = (
    "escra-controller pki: the `cryptography` library is not installed; "
    "`pip install 'escra[pki]'`, on this machine only, brings it"
)


@click.group(
    epilog=examples("escra-controller pki init", "escra-controller pki issue --controller ctl.example.net")
)
def pki() -> None:
    """A private CA for agents and controllers.

    Its certificates are how they know each other.  Needs the cryptography library, on this machine only.
    """


_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where the CA is; keep this folder to yourself.",
)
_force = click.option("--force", is_flag=True, help="Replace what is there.")


@pki.command(epilog=examples("escra-controller pki init"))
@_folder
@_force
def init(folder: Path, force: bool) -> None:
    """Make the CA: good for ten years."""
    with _explaining():
        from escra_controller.pki import init as make

        certificate = make(folder, datetime.now(UTC), force=force)
    click.echo(f"The CA is in {folder}, until {certificate.not_valid_after_utc:%Y-%m-%d}.")
    click.echo("Its key makes anybody's certificate: back the folder up, and let nobody else read it.")


@pki.command(
    epilog=examples(
        "escra-controller pki issue host-1",
        "escra-controller pki issue --controller ctl.example.net --ip 192.0.2.10",
        "escra-controller pki issue host-1 --force    # another year",
    )
)
@click.argument("host")
@click.option("--controller", is_flag=True, help="HOST is the name in the agents' `controller = ...`.")
@click.option(
    "--ip", "addresses", multiple=True, metavar="ADDRESS", help="Good for this address too; repeat."
)
@click.option(
    "--days", type=click.IntRange(1, 397), default=365, show_default=True, help="How long it lives."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was issued, and its files, as JSON.")
@_folder
@_force
def issue(
    host: str,
    controller: bool,
    addresses: tuple[str, ...],
    days: int,
    as_json: bool,
    folder: Path,
    force: bool,
) -> None:
    """Make a key and certificate for a host.

    For its agent, or with --controller for its controller.

    HOST is what the agent calls itself: its host name, or `host` in its agent.toml.  To renew, issue
    again with --force and replace the files on that host; nothing needs a restart that reads them itself.
    """
    with _explaining():
        from escra_controller.pki import files
        from escra_controller.pki import issue as make

        role: Role = "controller" if controller else "agent"
        made = make(folder, role, host, list(addresses), datetime.now(UTC), days=days, force=force)
        ca, cert, key = files(folder, role, host)
    if as_json:
        click.echo(json.dumps(_row(made) | {"ca": str(ca), "cert": str(cert), "key": str(key)}, indent=2))
        return
    click.echo(_instructions(made, ca, cert, key))


@pki.command("list", epilog=examples("escra-controller pki list"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_folder
def list_(as_json: bool, folder: Path) -> None:
    """What was issued, and when it ends.

    Certificates that a newer one replaced are `replaced`.
    """
    with _explaining():
        from escra_controller.pki import issued

        made = issued(folder)
    newest = {(each.role, each.name): each.serial for each in made}
    rows = [_row(each) | {"state": _state(each, newest)} for each in made]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from escra_controller.render import Column, table

    columns = [Column(title) for title in ("NAME", "ROLE", "ENDS", "STATE", "SERIAL")]
    cells = [[row["name"], row["role"], _day(row["not_after"]), row["state"], row["serial"]] for row in rows]
    click.echo("\n".join(table(columns, cells)))


def _state(each: "Issued", newest: "dict[tuple[Role, str], str]") -> str:
    if newest[each.role, each.name] != each.serial:
        return "replaced"
    return "valid" if time.time() <= each.not_after else "ended"


def _row(made: "Issued") -> dict[str, Any]:
    """The keys are a contract: times are unix seconds."""
    return {
        "name": made.name,
        "role": made.role,
        "addresses": made.addresses,
        "serial": made.serial,
        "not_before": made.not_before,
        "not_after": made.not_after,
    }


def _instructions(made: "Issued", ca: Path, cert: Path, key: Path) -> str:
    role, sources = made.role, (ca, cert, key)
    placed = (Path("/etc/escra/ca.pem"), Path(f"/etc/escra/{role}.pem"), Path(f"/etc/escra/{role}.key"))
    where = f"on {made.name}" if role == "agent" else "on the controller's machine"
    copies = (f"  {source} -> {target}" for source, target in zip(sources, placed, strict=True))
    return "\n".join(
        [
            f"{role} {made.name}: good until {_day(made.not_after)}, serial {made.serial}",
            "",
            f"Copy {where}, the key readable by root alone:",
            *copies,
            "",
            f"Then as credentials, by `systemctl edit escra-{role}`:",
            "  [Service]",
            *(f"  LoadCredential={target.name}:{target}" for target in placed),
            f"and in /etc/escra/{role}.toml:",
            *_tls(*(target.name for target in placed)),
            *(
                [
                    "",
                    "or, so that it sees a renewal by itself, without LoadCredential= and:",
                    *_tls(*(str(target) for target in placed)),
                ]
                if role == "agent"  # it may read root's files; the controller may not
                else []
            ),
        ]
    )


def _tls(ca: str, cert: str, key: str) -> list[str]:
    return ["  [tls]", f'  ca = "{ca}"', f'  cert = "{cert}"', f'  key = "{key}"']


def _day(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


@contextmanager
def _explaining() -> Iterator[None]:
    """What cannot be done ends the program with a line and status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("cryptography"):
            raise
        click.echo(MISSING, err=True)
        sys.exit(1)
    except (EscraError, OSError) as error:
        click.echo(f"escra-controller pki: {error}", err=True)
        sys.exit(1)
