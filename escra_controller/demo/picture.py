"""What the demo shows: the live picture, the log line, the summary.  Pure."""

from escra_controller.demo.scene import Frame, Phase, Scene, throttled_ratio, used_cores
from escra_controller.render import Paint, bar, percent, plain, sparkline

BAR_WIDTH = 30
SPARK_WIDTH = 50
PROMPT_MS = 50
# The scene itself leaves more than a quarter of two CPUs idle.
LEAST_IDLE = 0.1
LOG_LEGEND = "(each second: cores used/limit and share of throttled periods)"


def live(
    scene: Scene, phase: Phase, seconds: float, *, paint: Paint = plain, ascii_only: bool = False
) -> list[str]:
    """The picture of the last half second, at most 79 columns wide."""
    now, earlier = phase.frames[-1], earlier_frame(phase, 0.5)
    top = scene.omega_milli / 1000
    lines = [f"{phase.title:58} {now.at_s:5.1f} / {seconds:.0f} s"]
    for name in scene.names:
        limit = now.readings[name].limit_milli / 1000
        used = used_cores(earlier, now, name)
        ratio = throttled_ratio(earlier, now, name)
        drawn = bar(used, limit, top, BAR_WIDTH, ascii_only=ascii_only)
        throttled = f"throttled {percent(ratio):>4}"
        lines.append(
            f"  {name:5}{'*' if name == scene.busy(now.at_s) else ' '} {drawn} "
            f"limit {limit:.2f}  use {used:.2f}  {paint(throttled, 'bad') if ratio >= 0.1 else throttled}"
        )
    lines.append(f"  limits {now.allocated_milli / 1000:.2f} of {top:.2f} cores   * wants most now")
    return lines


def log_line(scene: Scene, phase: Phase) -> str:
    """One line for what is not a terminal, under ``LOG_LEGEND``."""
    now, earlier = phase.frames[-1], earlier_frame(phase, 1.0)
    parts = [
        f"{name} {used_cores(earlier, now, name):.2f}/{now.readings[name].limit_milli / 1000:.2f} "
        f"{percent(throttled_ratio(earlier, now, name)):>4}"
        for name in scene.names
    ]
    return f"{now.at_s:5.1f}s  {'  '.join(parts)}  sum {now.allocated_milli / 1000:.2f}"


def summary(
    scene: Scene, fixed: Phase, escra: Phase, *, simulated: bool = False, ascii_only: bool = False
) -> list[str]:
    """Both phases side by side, and whether the promise about their sum held."""
    where = "on the simulated host" if simulated else "on this machine's cgroups"
    mark = "simulated " if simulated else ""
    lines = [
        f"Summary: the same load, {where}",
        "",
        f"  {mark + 'measured':24}{'fixed limits':>14}{'Escra':>14}",
        _row("throttled share", percent_exact(fixed.throttled_share), percent_exact(escra.throttled_share)),
        _row("time throttled", f"{fixed.throttled_s:.1f} s", f"{escra.throttled_s:.1f} s"),
        _row("work done", _done(fixed), _done(escra)),
    ]
    prompt = fixed.answered_within(PROMPT_MS), escra.answered_within(PROMPT_MS)
    if prompt[0] is not None and prompt[1] is not None:
        label = f"answered within {PROMPT_MS} ms"
        lines.append(_row(label, percent_exact(prompt[0]), percent_exact(prompt[1])))
    lines += [
        _row("most allocated at once", _most(fixed), _most(escra)),
        "",
        f"  limits set by Escra over the {mark}phase, 0 to {scene.omega_milli / 1000:.2f} cores:",
    ]
    for name in scene.names:
        limits = _thinned([frame.readings[name].limit_milli for frame in escra.frames])
        lines.append(f"  {name:5} {sparkline(limits, scene.omega_milli, ascii_only=ascii_only)}")
    if min(fixed.idle, escra.idle) < LEAST_IDLE:
        lines += [
            "",
            "  Other work kept this machine's CPUs busy; on a quieter one both would do better.",
        ]
    return [*lines, "", verdict(scene, fixed, escra, simulated=simulated)]


def verdict(scene: Scene, fixed: Phase, escra: Phase, *, simulated: bool = False) -> str:
    label = "Simulated: " if simulated else ""
    if not held(scene, escra):
        return f"{label}FAILED: the limits summed to more than {scene.omega_milli / 1000:.2f} cores."
    if not better(fixed, escra):
        return f"{label}FAILED: fixed limits throttled no more than Escra."
    less = 1 - escra.throttled_share / fixed.throttled_share
    return (
        f"{label}{less:.0%} less throttling, and the limits never summed "
        f"to more than {scene.omega_milli / 1000:.2f} cores."
    )


def held(scene: Scene, phase: Phase) -> bool:
    return phase.most_allocated_milli <= scene.omega_milli


def better(fixed: Phase, escra: Phase) -> bool:
    return escra.throttled_share < fixed.throttled_share


def earlier_frame(phase: Phase, seconds: float) -> Frame:
    """The last frame at least this much older than the newest, or the first."""
    newest = phase.frames[-1].at_s
    return next((f for f in reversed(phase.frames) if newest - f.at_s >= seconds), phase.frames[0])


def percent_exact(ratio: float) -> str:
    return f"{ratio * 100:.1f} %"


def _row(label: str, fixed: str, escra: str) -> str:
    return f"  {label:24}{fixed:>14}{escra:>14}"


def _done(phase: Phase) -> str:
    return f"{phase.work.done_s / phase.work.offered_s * 100:.1f} %" if phase.work.offered_s else "-"


def _most(phase: Phase) -> str:
    return f"{phase.most_allocated_milli / 1000:.2f} cores"


def _thinned(values: list[int]) -> list[int]:
    step = max(1.0, len(values) / SPARK_WIDTH)
    return [values[int(index * step)] for index in range(int(len(values) / step))]
