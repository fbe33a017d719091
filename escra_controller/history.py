"""One line of an application's history: what it may have, what is handed out, and what is used."""

from escra_controller.state import App
from escra_controller.storage.values import HistoryRow


def history_row(app: App, at: float) -> HistoryRow:
    """``at`` is unix time."""
    members = list(app.members.values())
    throttled = [m.demand.latest.throttled for m in members if m.demand.latest]
    return HistoryRow(
        at=at,
        app=app.spec.name,
        cpu_limit_milli=app.spec.cpu,
        cpu_allocated_milli=app.ledger.counted,
        cpu_used_milli=round(sum(m.demand.used() for m in members)),
        memory_limit_bytes=app.spec.memory,
        memory_allocated_bytes=app.memory.counted,
        memory_used_bytes=sum(m.memory.level.used_bytes for m in members if m.memory.level),
        containers=len(members),
        hosts=len({m.key.host for m in members}),
        throttled_ratio=sum(throttled) / len(throttled) if throttled else 0.0,
    )
