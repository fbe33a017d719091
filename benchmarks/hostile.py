from collections.abc import Callable, Sequence
from typing import Any
HOSTILE: tuple[str, ...] = ()
def measure_hostile(kinds: Sequence[str], seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    return []
