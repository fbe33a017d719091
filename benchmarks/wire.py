"""Bytes between agent and controller, per container and second.

Both daemons, and a relay between them that counts.  Real cgroups with real tasks, in three phases: ``idle``
(nothing runs), ``steady`` (each works for 1 ms, a hundred times a second) and ``bursting`` (each works for
60 ms every 1.2 s, and is throttled in it).

``up`` (to the controller) and ``down`` are payload, heartbeats counted; ``on_the_wire`` is both with the
headers of Ethernet, IP and TCP, and an acknowledgement for each piece.  The original sends a report of 56
bytes per container and CFS period, 98 with its headers, whatever the container does, or 980 bytes a second.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.pair import running_pair
from benchmarks.relay import Relay
from benchmarks.tasks import built, numbered_cgroups, running_tasks
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup, controllers_enabled
from tests.pki_files import Authority, section

CONTAINERS = 20
ORIGINAL_BYTES_PER_S = 980
# How long each sleeps and works in turns (us).
PHASES = {"idle": None, "steady": (9_000, 1_000), "bursting": (1_200_000, 60_000)}
SETTLE_S, PHASE_S = 5.0, 12.0


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy), built("tasks") as programs:
        rows = [
            row
            for tls in (False, True)
            for row in _phases(hierarchy, programs["tasks"], tls, 3.0 if quick else PHASE_S, say)
        ]
    return {
        "containers": CONTAINERS,
        "bytes_per_container_s": rows,
        "original_bytes_per_container_s": ORIGINAL_BYTES_PER_S,
    }


def _phases(
    hierarchy: Hierarchy, program: str, tls: bool, seconds: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        groups = stack.enter_context(numbered_cgroups(hierarchy, CONTAINERS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="escra-wire-")))
        ours, theirs = _credentials(folder) if tls else ("", "")
        entries = "".join(
            f'[[cgroup]]\npath = "{group.path}"\napp = "bench"\nname = "c{n}"\n'
            for n, group in enumerate(groups)
        )
        pair = stack.enter_context(
            running_pair(f'grace_s = 0\n{ours}[apps.bench]\ncpu = 16\nmemory = "8GiB"\n', "", start=False)
        )
        relay = stack.enter_context(Relay(pair.port))
        pair.port = relay.port
        pair.write_config("agent", f'host = "bench"\n{theirs}[docker]\nenabled = false\n{entries}')
        pair.start()
        pair.wait_managed(*(f"c{n}" for n in range(CONTAINERS)))
        return [
            {"phase": phase, "tls": tls} | _count(relay, program, groups, work, seconds, say, phase)
            for phase, work in PHASES.items()
        ]


def _count(
    relay: Relay,
    program: str,
    groups: list[KernelCgroup],
    work: tuple[int, int] | None,
    seconds: float,
    say: Callable[[str], None],
    phase: str,
) -> dict[str, float]:
    say(phase)
    with running_tasks(program, [(group, work) for group in groups if work]):
        time.sleep(SETTLE_S)
        before, began = Counter(relay.counted), time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        counted = Counter(relay.counted)
    return {
        name: round((counted[name] - before[name]) / elapsed / CONTAINERS, 1)
        for name in ("up", "down", "on_the_wire")
    }


def _credentials(folder: Path) -> tuple[str, str]:
    """The [tls] sections of controller and agent."""
    authority = Authority(folder / "ca")
    controller = authority.issue("controller", "bench", "127.0.0.1")
    return section(controller), section(authority.issue("agent", "bench"))
