"""What an observed container would have, were it managed."""

from collections.abc import Callable
from dataclasses import dataclass

from escra_controller.state import MemberKey


@dataclass(frozen=True, slots=True)
class Would:
    """Limits that a container in observe mode would have now, in millicores and bytes; None: as they are.

    ``throttled`` is the share of the last period's work that the limit would have held back.
    """

    cpu_milli: int | None
    memory_bytes: int | None
    throttled: float


WouldHave = Callable[[MemberKey], Would | None]


def nobody(key: MemberKey) -> Would | None:
    """Where nobody observes."""
    return None
