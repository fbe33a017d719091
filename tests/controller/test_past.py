"""Questions about the past: bounded, refused when they are none, and the loop does not wait for them."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from escra_controller.client import query
from escra_controller.control import Reply, control_socket, serve
from escra_controller.past import Past, TooMuch
from escra_controller.storage.database import StoreError
from escra_controller.store import Store
from tests.controller.recorded import recorded, row
from tests.controller.storing import News, decision, opened

SPAN = {"app": "shop", "since": 0.0, "until": 1000.0}


def answered(store: Store, request: dict[str, Any]) -> Any:
    return asyncio.run(Past().answer(store, request))


def test_what_is_no_question_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        for request in (
            {"op": "audit", "limit": 1_000_000},
            {"op": "audit", "since": "yesterday"},
            {"op": "points", **SPAN, "step_s": 0.0, "first": 1, "last": 2},
            {"op": "points", **SPAN, "step_s": 1.0, "first": 1},
            {"op": "rules"},
            {"op": "set", "app": "shop"},
        ):
            with pytest.raises(msgspec.ValidationError):
                answered(store, request)
        for request in (
            {"op": "points", **SPAN, "step_s": 0.5, "first": 1, "last": 1},
            {"op": "points", **SPAN, "step_s": 10.0, "first": 1, "last": 51},
            {"op": "app-points", **SPAN, "step_s": 1e-9},
        ):
            with pytest.raises(TooMuch):
                answered(store, request)


def test_decisions_that_only_would_have_been_say_so(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        store.record([decision(1), msgspec.structs.replace(decision(2), observed=True)], 0.0)
    with opened(tmp_path) as (store, _):
        rows = answered(store, {"op": "audit", "container": "web", "rule": "throttled", "after": 0})
        assert [(event["number"], event["observed"]) for event in rows] == [(1, False), (2, True)]
        assert answered(store, {"op": "audit", "container": "another"}) == []


def test_the_loop_goes_on_while_the_disk_does_not_answer(tmp_path: Path) -> None:
    """Another program holds the store for itself: the question fails after a second, nothing else waits."""
    path = recorded(tmp_path, iter([[row(100.0)]]))
    with opened(tmp_path) as (store, _):
        pass

    async def asked() -> tuple[float, Reply]:
        late = 0.0
        past = Past()
        loop = asyncio.get_running_loop()

        async def answer(request: dict[str, Any]) -> Reply:
            try:
                return {"ok": True, "data": await past.answer(store, request)}
            except StoreError as error:
                return {"ok": False, "error": str(error), "code": 1}

        with control_socket(tmp_path / "control.sock") as listener:
            server = loop.create_task(serve(listener, answer))
            question = loop.run_in_executor(
                None, lambda: _outcome(tmp_path / "control.sock", {"op": "audit"})
            )
            while not question.done():
                before = time.monotonic()
                await asyncio.sleep(0.01)
                late = max(late, time.monotonic() - before)
            server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await server
            return late, question.result()

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        late, outcome = asyncio.run(asked())
        waited = time.monotonic() - began
    assert "locked" in outcome["error"]
    assert waited > 0.9
    assert late < waited / 2


def _outcome(path: Path, request: dict[str, Any]) -> Reply:
    try:
        return {"data": query(path, request, 10.0)}
    except Exception as error:
        return {"error": str(error)}


def test_a_store_that_is_closed_is_still_read(tmp_path: Path) -> None:
    store, _ = Store.open(tmp_path, News())
    store.record([decision(1)], 0.0)
    assert store.close(clean=True)
    assert len(answered(store, {"op": "audit"})) == 1
