"""What a test needs of the machine, and what happens where it is not there."""

import os
from typing import Literal, NoReturn

import pytest

Kind = Literal["kernel", "docker", "browser", "terminal"]


def unavailable(kind: Kind, reason: str) -> NoReturn:
    """Skip, except where skipping would hide that nothing was tested.

    That is with CI=true, and for the kinds listed in ESCRA_REQUIRE (``kernel,docker``).
    """
    required = os.environ.get("ESCRA_REQUIRE", "").split(",")
    if os.environ.get("CI") == "true" or kind in required:
        pytest.fail(f"{kind} tests must run here and cannot: {reason}")
    pytest.skip(f"{kind}: {reason}")
