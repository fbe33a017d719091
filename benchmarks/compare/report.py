"""results.json, and the same as tables: results.md to read, results.csv to compute with."""

import csv
import json
from collections.abc import Mapping, Sequence
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
    with (folder / "results.csv").open("w", newline="") as file:
        _csv(file, result["cells"])


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
        lines += ["", f"## {name}, {workload}: {profile['rate_rps']:.1f} requests/s", "", *_table(cells)]
    return "\n".join(lines) + "\n"


def _table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    header = "| " + " | ".join(COLUMNS.values()) + " |"
    return [header, "|---" * len(COLUMNS) + "|", *(_row(cell) for cell in cells)]


def _row(cell: Mapping[str, Any]) -> str:
    return "| " + " | ".join(_text(cell.get(name), DIGITS.get(name, 0)) for name in COLUMNS) + " |"


def _text(value: Any, digits: int) -> str:
    """
    >>> _text({"median": 1.26, "low": 1.0, "high": 2.0}, 1), _text(3, 0), _text(None, 0)
    ('1.3 [1.0, 2.0]', '3', 'none set')
    """
    if isinstance(value, Mapping):
        return f"{value['median']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return "none set" if value is None else str(value)


def _csv(file: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    """A line for each metric of each cell."""
    writer = csv.writer(file)
    writer.writerow(["application", "workload", "policy", "metric", "median", "low", "high"])
    for cell in cells:
        key = [cell["application"], cell["workload"], cell["policy"]]
        for name, value in cell.items():
            if isinstance(value, Mapping):
                writer.writerow([*key, name, value["median"], value["low"], value["high"]])
            elif name not in ("application", "workload", "policy"):
                writer.writerow([*key, name, value, value, value])
