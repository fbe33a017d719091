"""serverless.json, and the same as tables: serverless.md to read, serverless.csv to compute with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.compare.report import table, write_csv

COLUMNS = {
    "policy": "limits",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "containers": "containers",
    "under_way": "with a job",
    "limit_cores": "limits, cores",
    "used_cores": "used, cores",
    "limit_mib": "limits, MiB",
    "used_mib": "used, MiB",
    "throttled_ms_per_invocation": "throttled, ms each",
    "writes_per_s": "writes/s",
    "omega_violations": "Ω exceeded",
    "oom_kills": "OOM kills",
}
RATIOS = {
    "policy": "limits",
    "limit_cores": "limits, cores",
    "limit_mib": "limits, MiB",
    "used_cores": "used, cores",
    "used_mib": "used, MiB",
    "p50_ms": "p50",
    "p99_ms": "p99",
}
DIGITS = {"containers": 2, "under_way": 2, "limit_cores": 2, "used_cores": 2, "writes_per_s": 1}


def write(folder: Path, result: Mapping[str, Any]) -> None:
    (folder / "serverless.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "serverless.md").write_text(markdown(result))
    ratios = [{**row, "policy": f"{row['policy']}/fixed"} for row in result["ratios"]]
    write_csv(folder / "serverless.csv", ("function", "policy"), [*result["cells"], *ratios])


def markdown(result: Mapping[str, Any]) -> str:
    """For each function what was seen, and what it comes to."""
    lines = [
        "# Short-lived containers: fixed limits and Escra",
        "",
        f"{result['repetitions']} repetitions of {result['seconds']:g} s each, interleaved; medians, and in "
        "brackets 95 % bootstrap intervals.  Latency counts from the planned time of an invocation to its "
        "result, or to its container's exit where it takes only one; a failure counts as "
        f"{result['patience_ms']:g} ms.  Limits and use are those of all containers together, means of "
        "samples every 100 ms.  Ratios are those of repetitions with the same invocations.",
    ]
    for function in result["functions"]:
        cells = [cell for cell in result["cells"] if cell["function"] == function["name"]]
        ratios = [row for row in result["ratios"] if row["function"] == function["name"]]
        lines += [
            "",
            f"## {function['name']}: {function['about']}",
            "",
            *table(cells, COLUMNS, DIGITS),
            "",
            "Divided by what it was with fixed limits:",
            "",
            *table(ratios, RATIOS, dict.fromkeys(RATIOS, 2)),
        ]
    return "\n".join(lines) + "\n"
