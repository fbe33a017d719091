"""Statistics that a reader can check in the head."""

from collections.abc import Sequence


def percentile(values: Sequence[float], p: float) -> float:
    """The smallest value that at least ``p`` percent of all are not above (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * p // 100)
    return ordered[max(0, int(rank) - 1)]


def summary_ms(seconds: Sequence[float]) -> dict[str, float | int]:
    """``{"p50", "p99", "max", "events"}`` in milliseconds."""
    if not seconds:
        return {"events": 0}
    return {
        "p50": round(percentile(seconds, 50) * 1000, 1),
        "p99": round(percentile(seconds, 99) * 1000, 1),
        "max": round(max(seconds) * 1000, 1),
        "events": len(seconds),
    }


def worst_rate(
    points: Sequence[tuple[float, float]], window_s: float, allowed: Sequence[float] | None = None
) -> float:
    """The greatest growth per second of a cumulative value over any window of exactly ``window_s``.

    ``points`` are (time, value), in order; a window begins at a point, and the value at its end is
    interpolated between the two points around it.  ``allowed`` is what is not counted of a window, for each
    point it may begin at.
    """
    worst, right = 0.0, 0
    for index, (at, value) in enumerate(points):
        end = at + window_s
        while right < len(points) and points[right][0] < end:
            right += 1
        if right == len(points):
            break
        (t0, v0), (t1, v1) = points[right - 1], points[right]
        grown = v0 + (v1 - v0) * (end - t0) / (t1 - t0) - value
        worst = max(worst, (grown - (allowed[index] if allowed else 0.0)) / window_s)
    return worst
