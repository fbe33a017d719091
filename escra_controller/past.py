"""Questions about the past, answered from the store.

Each waits for the disk, so they are asked in a thread, a few at a time, and answered in bounded pieces:
the control loop has other things to do.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from escra_common.errors import EscraError
from escra_controller.rows import event_row
from escra_controller.storage import archive
from escra_controller.storage.containerhistory import POINT
from escra_controller.store import Store

# Points of containers in one reply: some 100 bytes each, and a few milliseconds to pack.
POINTS_AT_ONCE = 5000
MAX_DECISIONS = 2000
MAX_POINTS = 1000
# Further questions wait for these.
QUESTIONS_AT_ONCE = 2

Instant = Annotated[float, Meta(ge=0, le=1e11)]
Count = Annotated[int, Meta(ge=0, le=1 << 62)]


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="audit"):
    """Decisions with ``since <= at < until`` (unix time), oldest first.

    The latest ``limit``, or with ``after`` those numbered above it.
    """

    app: str | None = None
    container: str | None = None
    rule: str | None = None
    since: Instant | None = None
    until: Instant | None = None
    after: Count | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_DECISIONS)] = 50


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="rules"):
    """How often which rule decided about which container."""

    app: str
    since: Instant
    until: Instant


class Members(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="members"):
    """The containers that the history may tell of from ``since`` on, and from when to when it does."""

    since: Instant
    app: str | None = None


class AppPoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="app-points"):
    """An application's history in steps of ``step_s`` from ``since`` on."""

    app: str
    since: Instant
    until: Instant
    step_s: Annotated[float, Meta(gt=0)]


class Points(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="points"):
    """The same of its containers numbered ``first`` to ``last``."""

    app: str
    since: Instant
    until: Instant
    step_s: Annotated[float, Meta(gt=0)]
    first: Count
    last: Count


Question = Audit | Rules | Members | AppPoints | Points
OPS = frozenset({"audit", "rules", "members", "app-points", "points"})


class Past:
    """Made on a loop, for that loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def answer(self, store: Store, request: Mapping[str, Any]) -> Any:
        """Raises StoreError, or msgspec.ValidationError for a request that is none."""
        question: Question = msgspec.convert(request, Question)
        async with self._turn:
            return await asyncio.to_thread(store.read, lambda path: read(path, question))


def read(path: Path, question: Question) -> Any:
    """The answer, from the store at ``path``.  Raises StoreError, and TooMuch."""
    match question:
        case Audit(app, container, rule, since, until, after, limit):
            found = archive.read_decisions(path, app, since, until, after, limit, container, rule)
            return [event_row(number, decision, 0.0) for number, decision in found]
        case Rules(app, since, until):
            return archive.read_rules(path, app, since, until)
        case Members(since, app):
            return {
                "members": archive.read_members(path, app, since),
                "extent": archive.read_extent(path, app, since),
            }
        case AppPoints(app, since, until, step_s):
            _refuse_too_many(since, until, step_s, 1)
            return {
                "columns": archive.APP_POINT,
                "rows": archive.read_app_points(path, app, since, until, step_s),
            }
        case Points(app, since, until, step_s, first, last):
            _refuse_too_many(since, until, step_s, last - first + 1)
            rows = archive.read_points(path, app, since, until, step_s, (first, last))
            return {"columns": POINT, "rows": rows}


class TooMuch(EscraError):
    """The answer would be too large."""


def _refuse_too_many(since: float, until: float, step_s: float, members: int) -> None:
    steps = (until - since) / step_s
    if steps > MAX_POINTS or steps * members > POINTS_AT_ONCE:
        raise TooMuch(
            f"{steps:.0f} steps of {members} containers are too much for one answer; ask for at most"
            f" {MAX_POINTS} steps, and for {POINTS_AT_ONCE} steps of all containers together"
        )
