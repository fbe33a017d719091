"""What has been decided since the process started, by application: counters for Prometheus.  Pure.

They begin at 0 with the process, which `rate()` and `increase()` expect; what happened over its restarts
is in the store.
"""

from collections import Counter

from escra_controller.events import Decision

# Records of trouble rather than of a limit that moved.
TROUBLE = frozenset({"refused", "denied", "oom-kill"})


class Tally:
    """``changes`` by (application, resource, rule), ``refused`` by (application, resource), the rest by
    (application,).

    ``averted``: memory given to a container whose tasks waited at its limit, or were about to meet it.
    """

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, ...]] = Counter()
        self.refused: Counter[tuple[str, ...]] = Counter()
        self.denied: Counter[tuple[str, ...]] = Counter()
        self.kills: Counter[tuple[str, ...]] = Counter()

    def count(self, decision: Decision) -> None:
        """Take one line of the audit; what was only observed changed nothing."""
        if decision.observed:
            return
        app, rule = decision.app, decision.rule
        match rule:
            case "refused":
                self.refused[app, decision.resource] += 1
            case "denied":
                self.denied[app,] += 1
            case "oom-kill":
                self.kills[app,] += round(decision.numbers.get("kills", 1))
        if rule in TROUBLE or decision.before == decision.after:
            return
        self.changes[app, decision.resource, rule] += 1

    def begin(self, app: str) -> None:
        """A counter that was never 0 has no first increase: show it from the start."""
        for counts in (self.denied, self.kills):
            counts.setdefault((app,), 0)
