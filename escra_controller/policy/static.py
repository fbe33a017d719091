"""Fixed limits: the fair share a container started with, for comparison."""

from escra_controller.policy.base import Seen, Settings, Unlent, Wish


class StaticRule(Unlent):
    def __init__(self, settings: Settings) -> None:
        pass

    def decide(self, seen: Seen, now: float) -> Wish | None:
        return None

    def quiet_until(self, seen: Seen, now: float) -> float:
        return float("inf")
