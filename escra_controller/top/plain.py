"""``escra top`` without a terminal: one frame after the other as lines, or one JSON object per frame."""

import contextlib
import json
import sys
from typing import Any

import click

from escra_controller import views
from escra_controller.asking import Asker
from escra_controller.top.drawing import clock, summary
from escra_controller.top.items import in_order, listed, matching
from escra_controller.top.subscription import Lost, Subscription


async def print_frames(
    subscription: Subscription, asker: Asker, *, count: int | None, sort: str, words: str, as_json: bool
) -> None:
    """``count`` frames, None for ever.  What is not data goes to stderr."""
    shown, lost = 0, False
    async with contextlib.aclosing(subscription.heard()) as heard:
        async for reply in heard:
            if isinstance(reply, Lost):
                if not lost:
                    click.echo(f"no connection; trying again: {reply.reason}", err=True)
                lost = True
                continue
            lost = False
            if as_json:
                click.echo(json.dumps(reply))
            else:
                asker.show(reply, [*frame_lines(reply, asker, sort, words), ""])
            sys.stdout.flush()
            shown += 1
            if shown == count:
                return


def frame_lines(picture: dict[str, Any], asker: Asker, sort: str, words: str) -> list[str]:
    """The containers that pass the filter, in order, under a line about everything."""
    status = picture["status"]
    more = f"  {len(status['problems'])} problems: escra status" if status["problems"] else ""
    items = in_order(matching(listed(picture)["containers"], words), sort)
    return [
        f"{clock(picture)}  {status['state']}  {summary(picture)}{more}",
        *views.ps([item.row for item in items], asker.width, asker.paint),
    ]
