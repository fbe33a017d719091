"""Rules that say what a container should have; the pool decides what it gets.

A policy is a small plug-in: ``POLICIES[name](settings)`` makes one rule object per container.
"""

from collections.abc import Callable

from escra_controller.policy.base import Rule, Seen, Settings, Wish
from escra_controller.policy.escra import EscraRule
from escra_controller.policy.static import StaticRule

POLICIES: dict[str, Callable[[Settings], Rule]] = {"escra": EscraRule, "static": StaticRule}

__all__ = ["POLICIES", "Rule", "Seen", "Settings", "Wish"]
