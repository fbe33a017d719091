"""What an observed container would have, were it managed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Would:
    """Limits that a container in observe mode would have now, in millicores and bytes; None: as they are.

    ``throttled`` is the share of the last period's work that the limit would have held back.
    """

    cpu_milli: int | None
    memory_bytes: int | None
    throttled: float
