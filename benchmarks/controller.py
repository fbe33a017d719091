"""How many agents can one controller serve?  The real process, on loopback, and a crowd that speaks to it.

For each size: agents with 100 containers each, ten of which are eventful in every tick of 100 ms (crowd.py),
ten agents to an application, or all of them to one (``apps`` 1).  Plaintext, as loopback allows.
``events_per_s`` are the crowd's samples; ``core_percent`` is the controller's CPU time, all threads, and
``generator_percent`` that of the crowd, which has to share the machine with it.  ``decision_ms``: from an
honest probe's sample of a throttled container leaving to its new limit arriving (speaker.py), meanwhile.
``bytes_per_event``: what comes in.  ``join_s``: from nothing to a limit for every container; ``rejoin_s``:
all agents hang up and come back at the same moment, until all have been taken; ``late_ticks``: of the
controller's, in each of these times.  What a size is too large for is said as its ``failed``, after what
was measured until then.

``recovery``: a controller that is killed with 1,000 containers, and started again.
"""

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.numbers import summary_ms
from benchmarks.pair import Pair, running_pair
from benchmarks.speaker import Speaker
from escra_controller.client import QueryError

CONTAINERS, EVENTFUL = 100, 10
AGENTS_PER_APP = 10
# Of a container that came; an application has at most 1,000 cores, which is all that ten thousand can have.
LEVEL, LEVEL_IN_HUGE = 500, 80
# Until what came with the first limits has come to rest.
REST_S = 6.0
PROBE_EVERY_S = 0.02
PROBED = 100
ROOT = Path(__file__).parents[1]
Say = Callable[[str], None]


def measure(quick: bool, say: Say, agents: int | None = None, huge: bool = False) -> dict[str, Any]:
    seconds = 3.0 if quick else 15.0
    if agents is not None:
        cases = [(agents, huge)]
    elif quick:
        cases = [(10, False), (10, True)]
    else:
        cases = [(10, False), (100, False), (300, False), (1000, False), (100, True)]
    sizes: list[dict[str, Any]] = []
    for count, together in cases:
        row: dict[str, Any] = {}
        try:
            for part in measure_size(count, together, seconds):
                row |= part
        except (OSError, QueryError) as error:
            row["failed"] = str(error).splitlines()[0]
        sizes.append(row)
        say(f"controller: {json.dumps(row)}")
    recovery = measure_recovery()
    say(f"recovery: {json.dumps(recovery)}")
    return {"sizes": sizes, "recovery": recovery}


def measure_size(agents: int, huge: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """A row, part by part."""
    yield {
        "agents": agents,
        "containers": agents * CONTAINERS,
        "apps": 1 if huge else max(1, agents // AGENTS_PER_APP),
    }
    with running_scene(agents, huge) as scene:
        joined = scene.crowd.answer(120)
        yield {"join_s": round(joined["at"], 2), "join_late_ticks": scene.late_ticks()}
        scene.rest()
        before, late_before = scene.cpu_s(), scene.late_ticks()
        scene.crowd.ask("report")
        delays_s = scene.probe(seconds)
        seen = scene.crowd.ask("report")
        used_s, late = scene.cpu_s() - before, scene.late_ticks() - late_before
        yield {
            "events_per_s": round(seen["events"] / seen["at"]),
            "limit_changes_per_s": round(seen["changes"] / seen["at"]),
            "core_percent": round(100 * used_s / seen["at"], 1),
            "generator_percent": round(100 * seen["cpu_s"] / seen["at"], 1),
            "decision_ms": summary_ms(delays_s),
            "rss_mib": scene.rss_mib(),
            "bytes_per_event": round(seen["bytes_out"] / max(1, seen["events"]), 1),
            "late_ticks": late,
            "lost_connections": seen["lost"],
            "crowd_late": seen["late"],
        }
        late_before = scene.late_ticks()
        again = scene.crowd.ask("again")
        yield {
            "rejoin_s": round(again["at"], 2),
            "rejoin_late_ticks": scene.late_ticks() - late_before,
            "rss_after_mib": scene.rss_mib(),
        }


def measure_recovery() -> dict[str, Any]:
    """1,000 containers on ten hosts, that redial as soon as they are answered."""
    with running_scene(10, huge=False) as scene:
        scene.crowd.answer(60)
        scene.rest()
        scene.pair.stop("controller", signal.SIGKILL)
        began = time.monotonic()
        scene.pair.start("controller")
        scene.wait_listening()
        listening_s = time.monotonic() - began
        again = scene.crowd.ask("again")
        managed = sum(row["state"] == "managed" for row in scene.pair.ask("ps"))
        return {
            "containers": 10 * CONTAINERS,
            "managed": managed,
            "start_s": round(listening_s, 2),
            "recovery_s": round(again["at"], 2),
        }


class Crowd:
    """dial.py as a process."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.dial", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, word: str) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.answer(60)

    def answer(self, timeout_s: float) -> dict[str, float]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise TimeoutError(f"the crowd said nothing for {timeout_s:g} s")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Scene:
    def __init__(self, pair: Pair, crowd: Crowd, app: str) -> None:
        self.pair = pair
        self.crowd = crowd
        self._app = app

    @property
    def _victim(self) -> psutil.Process:
        return psutil.Process(self.pair.processes["controller"].pid)

    def cpu_s(self) -> float:
        times = self._victim.cpu_times()
        return times.user + times.system

    def rss_mib(self) -> float:
        return round(self._victim.memory_info().rss / 2**20, 1)

    def late_ticks(self) -> int:
        late: int = self.pair.ask("status")["late_ticks"]
        return late

    def rest(self) -> None:
        time.sleep(REST_S)

    def wait_listening(self) -> None:
        self.pair.wait_until(lambda: bool(self.pair.ask("status")), "the controller listens")

    def probe(self, seconds: float) -> list[float]:
        delays_s: list[float] = []
        end = time.monotonic() + seconds
        with Speaker(self.pair.port, PROBED, host="probe", app=self._app) as speaker:
            while time.monotonic() < end:
                delays_s.append(speaker.throttle(1 + len(delays_s) % PROBED))
                time.sleep(PROBE_EVERY_S)
        return delays_s


@contextmanager
def running_scene(agents: int, huge: bool) -> Iterator[Scene]:
    apps = 1 if huge else max(1, agents // AGENTS_PER_APP)
    each = agents // apps * CONTAINERS
    level = LEVEL_IN_HUGE if huge else LEVEL
    config = "grace_s = 0\n" + "".join(
        f"[apps.app{n}]\ncpu = {min(1000, 1.2 * level / 1000 * each):g}\ncpu_max = 4\ncpu_min = 0.02\n"
        f'memory = "{each // 2}GiB"\n'
        for n in range(apps)
    )
    if not huge:
        config += '[apps.probe]\ncpu = 900\ncpu_max = 4\nmemory = "1GiB"\n'
    with running_pair(config, "", start=False, nice=-10) as pair:
        pair.start("controller")
        pair.wait_until(lambda: bool(pair.ask("status")), "the controller listens")
        crowd = Crowd(pair.port, agents, CONTAINERS, agents // apps, EVENTFUL, level)
        try:
            yield Scene(pair, crowd, "app0" if huge else "probe")
        finally:
            crowd.close()
