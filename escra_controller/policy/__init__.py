"""Rules that say what a container should have; the pool decides what it gets.

A policy is a small plug-in: ``POLICIES[name](settings)`` makes one rule object per container.
"""

from collections.abc import Callable

from escra_controller.policy.autopilot import AutopilotRule
from escra_controller.policy.autothrottle import AutothrottleRule
from escra_controller.policy.base import Rule, Seen, Settings, Wish
from escra_controller.policy.escra import EscraRule
from escra_controller.policy.koordinator import KoordinatorRule
from escra_controller.policy.rubik import RubikRule
from escra_controller.policy.static import StaticRule
from escra_controller.policy.vpa import VpaRule

POLICIES: dict[str, Callable[[Settings], Rule]] = {
    "escra": EscraRule,
    "static": StaticRule,
    "vpa": VpaRule,
    "autopilot": AutopilotRule,
    "koordinator": KoordinatorRule,
    "rubik": RubikRule,
    "autothrottle": AutothrottleRule,
}

__all__ = ["POLICIES", "Rule", "Seen", "Settings", "Wish"]
