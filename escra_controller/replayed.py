"""The answer of ``escra replay``: its words become variants, and what these did a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from escra_common.errors import EscraError
from escra_common.units import format_bytes, parse_bytes, parse_cpu
from escra_controller.memory import MemorySettings
from escra_controller.policy import POLICIES, Settings
from escra_controller.recording import Header, apps_of, convert, read
from escra_controller.render import Cell, Column, percent, table
from escra_controller.replay import Row, Variant, compare, summary

CHUNK_BYTES = 1 << 20


def show(
    file: Path,
    policies: Sequence[str],
    changes: Sequence[str],
    cpu: str | None,
    memory: str | None,
    *,
    as_json: bool,
) -> None:
    """Print it; raises what click reports."""
    try:
        with file.open("rb") as source:
            head, records = read(iter(lambda: source.read(CHUNK_BYTES), b""), str(file))
        specs = apps_of(records)
        if (cpu or memory) and len(specs) != 1:
            names = ", ".join(sorted(specs)) or "none"
            raise click.UsageError(f"--cpu and --memory are for one application; recorded are: {names}")
        rows = compare(records, _variants(head, policies, changes, cpu, memory))
    except EscraError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from error
    about = summary(records, specs)
    if as_json:
        click.echo(json.dumps({"recording": about, "runs": rows}, indent=2))
    else:
        click.echo("\n".join(_lines(about, rows)))


def _variants(
    head: Header, policies: Sequence[str], changes: Sequence[str], cpu: str | None, memory: str | None
) -> list[Variant]:
    policy: dict[str, Any] = msgspec.structs.asdict(head.policy)
    sizes: dict[str, Any] = msgspec.structs.asdict(head.memory)
    for change in changes:
        name, equals, value = change.partition("=")
        place, key = (sizes, name[len("memory.") :]) if name.startswith("memory.") else (policy, name)
        if not equals or key not in place or key == "name":
            known = ", ".join([*(k for k in policy if k != "name"), *(f"memory.{k}" for k in sizes)])
            raise click.UsageError(f"--set {change}: write KEY=VALUE with one of {known}")
        place[key] = value
    if unknown := sorted(set(policies) - set(POLICIES)):
        raise click.UsageError(f"--policy {unknown[0]}: there are {', '.join(sorted(POLICIES))}")
    try:
        omega = (
            None if cpu is None else int(parse_cpu(cpu)),
            None if memory is None else int(parse_bytes(memory)),
        )
        settings = convert(sizes, MemorySettings)
        return [
            Variant(name, convert(policy | {"name": name}, Settings), settings, *omega)
            for name in policies or [head.policy.name]
        ]
    except ValueError as error:
        raise click.UsageError(str(error)) from error


_MEASURES: tuple[tuple[str, str, Any], ...] = (
    ("throttled share", "throttled_ratio", percent),
    ("mean slack, cores", "slack_mean_cores", lambda v: f"{v:.2f}"),
    ("p99 slack, cores", "slack_p99_cores", lambda v: f"{v:.2f}"),
    ("most allocated, cores", "most_allocated_cores", lambda v: f"{v:.2f}"),
    ("mean slack, memory", "slack_mean_bytes", format_bytes),
    ("p99 slack, memory", "slack_p99_bytes", format_bytes),
    ("most allocated, memory", "most_allocated_bytes", format_bytes),
    ("limit changes", "limit_changes", str),
    ("OOM kills", "oom_kills", str),
    ("OOM kills averted", "oom_averted", str),
    ("Ω violations", "omega_violations", str),
)


def _lines(about: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    columns = [Column(""), *(Column(row["name"], right=True) for row in rows)]
    cells: list[list[Cell | str]] = [
        [name, *("-" if row[key] is None else text(row[key]) for row in rows)]
        for name, key, text in _MEASURES
    ]
    apps = ", ".join(about["apps"]) or "no application"
    head = f"{apps}: {about['containers']} containers, {about['seconds']:.1f} s, {about['events']} events"
    return [head, "", *table(columns, cells)]
