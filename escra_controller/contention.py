"""When an application's containers want more than there is: who asks, and who gives.

Rules say whether a wish is worth asking others for.  Then these give what they do not use, even of their fair
share, and to who is below its fair share also what they use above theirs.
"""

from collections.abc import Callable
from math import ceil

from escra_controller.cpuheadroom import CpuHeadroom
from escra_controller.policy import Settings, Wish
from escra_controller.rounds import Round
from escra_controller.sharing import Holding, donations
from escra_controller.state import Member

# How long a wish that could not be met stands; the container will say so again if it still throttles.
UNMET_S = 0.5
# The exhausted pool is divided anew at most this often, and not for less than this share of a limit.
SHARE_EVERY_S = 0.2
LEAST_SHARE = 0.02
# A donor keeps what it used on average in this time, with the headroom.
NEED_WINDOW_S = 1.0


class Contention:
    """Stateless but for its settings.  ``order`` lowers a limit; growth is left to the caller."""

    def __init__(
        self, settings: Settings, headroom: CpuHeadroom, order: Callable[[Round, Member, int, Wish], None]
    ) -> None:
        self._agents, self._order = headroom, order
        self._headroom, self._burst = settings.headroom, settings.burst

    def share(self, r: Round) -> None:
        """Collect for wishes that the pool could not meet, and that are worth it."""
        app = r.app
        asking = {key: wish for key, (wish, _) in app.unmet.items() if wish.asks}
        if not asking or r.now - app.shared_at < SHARE_EVERY_S:
            return
        fair = app.fair_shares()
        entitled = welcome = 0
        for key, wish in asking.items():
            limit = app.members[key].limit or 0  # managed: see Engine, which forgets the others' wishes
            lacks, below_fair = wish.target - limit, fair[key] - limit
            entitled += max(0, min(lacks, below_fair))
            welcome += max(0, lacks - max(0, below_fair))
        self.collect(r, entitled, welcome, "others are throttled")

    def collect(self, r: Round, entitled: int, welcome: int, why: str) -> None:
        """Lower limits, see ``donations``; what is free already, or with agents for nothing, need not be."""
        app = r.app
        left = max(0, entitled - app.ledger.free)
        welcome = max(0, welcome - max(0, app.ledger.free - entitled))
        if left + welcome == 0:
            return
        if back := self._agents.take_back(r, left + welcome):
            left, welcome = max(0, left - back), max(0, welcome - max(0, back - left))
            app.shared_at = r.now
        fair = app.fair_shares()
        holdings = {
            # A share pays for the burst, too.
            m.key: Holding(
                limit, int(fair[m.key] / (1 + self._burst)), self._need(r, m, limit), app.claim(m).floor
            )
            for m, limit in _settled(r)
        }
        for key, limit in donations(left, welcome, holdings).items():
            member = app.members[key]
            # What is above Ω is collected to the last bit.
            least = 0 if app.ledger.counted > app.ledger.omega else LEAST_SHARE * holdings[key].limit
            if holdings[key].limit - limit > least:
                numbers = {"fair_cores": fair[key] / 1000, "used_cores": member.demand.used() / 1000}
                cause = f"{why}, and it has more than it uses, or than its fair share"
                self._order(r, member, limit, Wish(limit, "share", cause, numbers))
                app.shared_at = r.now

    def _need(self, r: Round, member: Member, limit: int) -> int:
        """Who wishes for more needs all that it has, whatever was seen of it before."""
        if member.key in r.app.unmet:
            return limit
        window = member.demand.window(r.now - NEED_WINDOW_S)
        used = window.mean_used if window else member.demand.used()
        return ceil(used * (1 + self._headroom))


def _settled(r: Round) -> list[tuple[Member, int]]:
    """Whose limit can be lowered now, and that limit."""
    return [
        (m, m.limit)
        for m in r.reachable
        if m.state == "managed" and m.limit is not None and not r.app.ledger[m.key].pending
    ]
