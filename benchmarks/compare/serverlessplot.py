"""A picture of limits and use over time, of all containers together.

matplotlib is for this only: ``pip install --group bench``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.compare.invocations import Sample

COLOURS = {"fixed": "C7", "escra": "C0", "escra-defaults": "C9"}


def draw(path: Path, functions: Mapping[str, Mapping[str, Sequence[Sample]]]) -> Path:
    """``functions``: for each, the samples of one repetition by policy.  CPU above, memory below."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(
        2,
        len(functions),
        figsize=(3 + 4.5 * len(functions), 6),
        layout="constrained",
        sharex="col",
        squeeze=False,
    )
    for (cpu, memory), (name, samples) in zip(zip(*grid, strict=True), functions.items(), strict=True):
        for policy, of in samples.items():
            times, colour = [s.at_s for s in of], COLOURS[policy]
            cpu.step(
                times, [s.limit_cores for s in of], color=colour, where="post", label=f"{policy}: limits"
            )
            memory.step(times, [s.limit_bytes / 2**20 for s in of], color=colour, where="post")
        escra = samples["escra"]
        times = [s.at_s for s in escra]
        cpu.fill_between(times, [s.used_cores for s in escra], color="C1", alpha=0.6, label="escra: used")
        memory.fill_between(times, [s.used_bytes / 2**20 for s in escra], color="C1", alpha=0.6)
        cpu.set_title(name)
        memory.set_xlabel("time, s")
        for axes in (cpu, memory):
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
    grid[0][0].set_ylabel("CPU, cores")
    grid[1][0].set_ylabel("memory, MiB")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle("Limits and use of all containers together, first repetition", fontsize="medium")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
