"""results.json, and the same as tables: results.md to read, results.csv to compute with."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = {
    "policy": "policy",
    "throughput_rps": "done/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "slack_cores_p50": "slack p50, cores",
    "slack_cores_p99": "slack p99, cores",
    "slack_mib_p50": "memory slack p50, MiB",
    "throttled_share": "throttled",
    "writes_per_s": "writes/s",
    "omega_violations": "Ω exceeded",
    "oom_kills": "OOM kills",
}
DIGITS = {
    "slack_cores_p50": 2,
    "slack_cores_p99": 2,
    "throttled_share": 3,
    "throughput_rps": 1,
    "writes_per_s": 1,
}


def write(folder: Path, result: Mapping[str, Any]) -> None:
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "results.md").write_text(markdown(result))
    write_csv(folder / "results.csv", ("application", "workload", "policy"), result["cells"])


def markdown(result: Mapping[str, Any]) -> str:
    """A table for each application and load: medians, with their intervals in brackets."""
    lines = [
        f"# Comparison under Ω = {result['omega_cores']:g} cores",
        "",
        f"Services in {result['place']}; {result['repetitions']} repetitions of {result['seconds']:g} s "
        "each, interleaved; medians, and in brackets 95 % bootstrap intervals.  Latency counts from the "
        f"planned time of a request; one that failed counts as {result['patience_ms']:g} ms.  Slack is the "
        "sum of the limits less the use, every 100 ms.",
    ]
    if result["left_out"]:
        lines += ["", f"Left out of a full run: {'; '.join(result['left_out'])}."]
    for profile in result["profiles"]:
        name, workload = profile["application"], profile["workload"]
        cells = [c for c in result["cells"] if (c["application"], c["workload"]) == (name, workload)]
        lines += [
            "",
            f"## {name}, {workload}: {profile['rate_rps']:.1f} requests/s",
            "",
            *table(cells, COLUMNS, DIGITS),
        ]
    return "\n".join(lines) + "\n"


def table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], digits: Mapping[str, int]
) -> list[str]:
    """In markdown: ``columns`` is what is shown and its title, ``digits`` after the point, else none."""
    return [
        _line(columns.values()),
        "|---" * len(columns) + "|",
        *(_line(_text(row.get(name), digits.get(name, 0)) for name in columns) for row in rows),
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any, digits: int) -> str:
    """
    >>> _text({"median": 1.26, "low": 1.0, "high": 2.0}, 1), _text(3, 0), _text(None, 0)
    ('1.3 [1.0, 2.0]', '3', 'none set')
    """
    if isinstance(value, Mapping):
        return f"{value['median']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return "none set" if value is None else str(value)


def write_csv(path: Path, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each metric of each row, which ``keys`` name."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*keys, "metric", "median", "low", "high"])
        for row in rows:
            key = [row[name] for name in keys]
            for name, value in row.items():
                if isinstance(value, Mapping):
                    writer.writerow([*key, name, value["median"], value["low"], value["high"]])
                elif name not in keys:
                    writer.writerow([*key, name, value, value, value])
