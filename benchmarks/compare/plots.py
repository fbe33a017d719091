"""Pictures of a comparison: how latency and slack are distributed, and limits and use over time.

matplotlib is for this only: ``pip install --group bench``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.compare.generator import PATIENCE_S
from benchmarks.compare.records import Record, read_records
from benchmarks.compare.regimes import POLICIES

# Escra is to be seen among eleven; the others are told apart by colour and stroke.
STROKES = ("-", "--", ":", "-.")


def available() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(folder: Path) -> list[Path]:
    """Three pictures for each application and load, from the records in ``folder``."""
    import matplotlib

    matplotlib.use("agg")
    by_cell: dict[tuple[str, str], list[Record]] = {}
    for record in read_records(folder):
        by_cell.setdefault(record.cell, []).append(record)
    drawn = []
    for (application, workload), records in by_cell.items():
        stem = f"{application}-{workload}"
        drawn += [
            _cdfs(
                folder / f"{stem}-latency.png", records, f"{stem}: latency, ms", _latencies, logarithmic=True
            ),
            _cdfs(folder / f"{stem}-slack.png", records, f"{stem}: sum of limits less use, cores", _slack),
            _over_time(folder / f"{stem}-time.png", records, stem),
        ]
    return drawn


def _latencies(record: Record) -> list[float]:
    return [*record.latencies_ms, *[PATIENCE_S * 1000] * record.failed]


def _slack(record: Record) -> list[float]:
    return [limit - used for limit, used in _sums(record) if limit is not None]


def _sums(record: Record) -> list[tuple[float | None, float]]:
    """Limits, None where one has none, and use of all containers together, every 100 ms."""
    sums: list[tuple[float | None, float]] = []
    for n in range(len(record.times_s)):
        limits = [series.limit_cores[n] for series in record.series.values()]
        known = [limit for limit in limits if limit is not None]
        used = sum(series.used_cores[n] for series in record.series.values())
        sums.append((sum(known) if len(known) == len(limits) else None, used))
    return sums


def _by_policy(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {p: found for p in POLICIES if (found := [r for r in records if r.policy == p])}


def _cdfs(
    path: Path,
    records: Sequence[Record],
    title: str,
    values: Callable[[Record], list[float]],
    *,
    logarithmic: bool = False,
) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for n, (policy, found) in enumerate(_by_policy(records).items()):
        pooled = sorted(value for record in found for value in values(record))
        if not pooled:
            continue
        shares = [(k + 1) / len(pooled) for k in range(len(pooled))]
        width = 2.5 if policy == "escra" else 1.2
        axes.plot(
            pooled, shares, STROKES[n % len(STROKES)], label=policy, linewidth=width, color=f"C{n % 10}"
        )
    if logarithmic:
        axes.set_xscale("log")
    axes.set(xlabel=title, ylabel="share", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _over_time(path: Path, records: Sequence[Record], title: str) -> Path:
    """The first repetition of each policy: the sum of the limits, and what was used of it."""
    from matplotlib import pyplot

    policies = _by_policy(records)
    columns = min(3, len(policies))
    rows = -(-len(policies) // columns)
    figure, grid = pyplot.subplots(
        rows,
        columns,
        figsize=(4 * columns, 2.2 * rows),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes in grid.flat[len(policies) :]:
        axes.set_visible(False)
    for axes, (policy, found) in zip(grid.flat, policies.items(), strict=False):
        first, sums = found[0], _sums(found[0])
        axes.fill_between(first.times_s, [used for _, used in sums], alpha=0.5, label="used")
        if all(limit is not None for limit, _ in sums):
            axes.plot(first.times_s, [limit for limit, _ in sums], color="C3", label="limits")
        axes.set_title(policy, fontsize="medium")
        axes.tick_params(labelbottom=True)
        axes.grid(alpha=0.3)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="upper right", fontsize="small")
    figure.supxlabel("s")
    figure.supylabel("cores")
    figure.suptitle(f"{title}: limits and use, the first repetition")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
