"""Looks at the whole state in steps, with time for other work between them.  Pure."""

from collections.abc import Iterable, Iterator

from escra_controller.engine import Engine
from escra_controller.metrics import series
from escra_controller.metrics.series import Family, Ticks
from escra_controller.metrics.tally import Tally
from escra_controller.rows import Row, app_row, container_row
from escra_controller.state import Member


def gather(engine: Engine, tally: Tally, own: Ticks, now: float, wall: float) -> Iterator[Iterable[Family]]:
    """Nothing or families in each step; the engine may change in between.

    The containers of one application are looked at in one step: their limits are those of one moment, and
    sum to at most Ω.  ``wall`` is the unix time at ``now``.
    """
    apps = [app for app in engine.apps.values() if not app.removed]
    for app in apps:
        tally.begin(app.spec.name)
    yield series.decisions(tally)
    yield series.agents(engine, now, wall)
    yield series.ticks(engine, own)
    yield series.applications([app_row(app) for app in apps])
    rows: list[Row] = []
    for members in _by_app(engine.members.values()):
        # Who went in the meantime, perhaps with its host, has no row any more.
        rows += [container_row(engine, member) for member in members if member.key in engine.members]
        yield ()
    yield series.containers(rows)


def _by_app(members: Iterable[Member]) -> list[list[Member]]:
    """Also of those whose application nobody has configured."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.info.app, []).append(member)
    return list(found.values())
