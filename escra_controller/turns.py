"""When the next handshake may begin.  Pure.

A handshake and what follows it cost the loop a few milliseconds: many at once are a long pause for everybody
who is connected already.  So they begin some time apart; further apart the more of them lead to nothing,
and at once again when they do, for a fleet that comes back must not be kept waiting.  Addresses from
which agents have joined have a lane of their own, in which strangers hold nobody up.
"""

TURN_S = 0.0015
# With an attack under way: a tenth of the controller's time, or two.
LONGEST_TURN_S = 0.016
SLOWER, FASTER = 1.1, 0.5
# Nobody is to wait longer than a handshake may take: behind a queue like this, turns are short again.
PATIENCE_S = 0.8
# An address is trusted for so many more that lead to nothing: agents also pay short visits.
CREDIT = 64
MAX_KNOWN = 4096


class Turns:
    """Times are monotonic, in seconds."""

    def __init__(self) -> None:
        # What is left of its credit, by address; who joined last comes last.
        self._known: dict[str, int] = {}
        self._known_next = self._next = 0.0
        self._turn_s = TURN_S

    def wait_s(self, address: str, now: float) -> float:
        """Until the turn that this takes."""
        if address in self._known:
            begin = max(now, self._known_next)
            self._known_next = begin + TURN_S
        else:
            begin = max(now, self._next)
            self._next = begin + (self._turn_s if begin - now < PATIENCE_S else TURN_S)
        return begin - now

    def joined(self, address: str) -> None:
        """An agent from there was who it said."""
        self._known.pop(address, None)
        self._known[address] = CREDIT
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._turn_s = max(TURN_S, self._turn_s * FASTER)

    def wasted(self, address: str) -> None:
        """One that came from there went without having joined."""
        if address not in self._known:
            self._turn_s = min(LONGEST_TURN_S, self._turn_s * SLOWER)
        elif self._known[address] > 1:
            self._known[address] -= 1
        else:
            del self._known[address]
