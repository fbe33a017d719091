"""Names for the shell's completion, asked of the running controller: fast, or not at all."""

from collections.abc import Callable

import click

from escra_controller.client import DEFAULT_SOCKET, QueryError, query

# Who presses TAB should not notice that somebody was asked.
PATIENCE_S = 0.2

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names(op: str, key: str = "name") -> Complete:
    """Completes with what the rows that answer ``op`` have under ``key``; nobody answers: with nothing."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        socket = context.params.get("socket") or DEFAULT_SOCKET
        try:
            rows = query(socket, {"op": op}, PATIENCE_S)
        except QueryError:
            return []
        return sorted({row[key] for row in rows if row[key].startswith(incomplete)})

    return complete
