"""What the agent costs its host, beside the least that it can cost.  (No promise; a target.)

A real agent process looks after real cgroups, each with a task in it: of ten, nine are idle (a short piece of
work every five seconds), and one in ten works, ten times a second (``MIX``).  Its controller only speaks the
protocol (listener.py): every limit is managed, and stays.

``c_floor_core_percent`` is a C program (floor.c) that makes the reads which the agent makes of an idle and of
a moving container, with pread on kept descriptors, at the same rate, in the same cgroups, in the same run:
turn by turn one of the two is measured, and the medians count.

``core_percent`` is CPU time by /proc/PID/task/*/schedstat, the guard process counted.  ``rss_mib`` is what is
resident of the agent and, of the guard, what is its own: the interpreter's pages, which both map, count once.
"""

import contextlib
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.listener import Listener
from benchmarks.pair import running_pair
from benchmarks.tasks import built, numbered_cgroups, running_tasks
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup, controllers_enabled

HERE = Path(__file__).parent
SIZES = (100, 1000)
MIB = 1 << 20
# Share, and how long it sleeps and works in turns (us).
MIX = {"idle": (0.90, 5_000_000, 100), "light": (0.08, 100_000, 100), "busy": (0.02, 100_000, 2_000)}
LIMIT_MILLI, LIMIT_BYTES = 500, 256 << 20
TURNS, TURN_S, WARM_UP_S = 5, 4.0, 6.0


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    hierarchy = Hierarchy.detect()
    with controllers_enabled(hierarchy), built("tasks", "floor") as programs:
        sizes = []
        for containers in SIZES:
            say(f"{containers} containers")
            sizes.append(_size(hierarchy, programs, containers, 1 if quick else TURNS))
    return {
        "cgroup": hierarchy.version,
        "interval_s": 0.1,
        "mix": {
            name: {"share": share, "wakes_every_s": wake / 1e6, "works_s": work / 1e6}
            for name, (share, wake, work) in MIX.items()
        },
        "sizes": sizes,
    }


def _size(hierarchy: Hierarchy, programs: dict[str, str], containers: int, turns: int) -> dict[str, Any]:
    with ExitStack() as stack:
        groups = stack.enter_context(numbered_cgroups(hierarchy, containers))
        work = [MIX[kind][1:] for kind in kinds_of(containers)]
        stack.enter_context(running_tasks(programs["tasks"], zip(groups, work, strict=True)))
        listener = stack.enter_context(Listener(LIMIT_MILLI, LIMIT_BYTES))
        entries = "".join(
            f'[[cgroup]]\npath = "{group.path}"\napp = "bench"\nname = "c{n}"\n'
            for n, group in enumerate(groups)
        )
        # Docker is looked for, as on a real host, and is not there.
        docker = '[docker]\nsocket = "/nonexistent/docker.sock"\n'
        pair = stack.enter_context(running_pair("", docker + entries, start=False, nice=-10))
        pair.port = listener.port
        pair.write_config("agent", docker + entries)
        pair.start("agent")
        agent = psutil.Process(pair.processes["agent"].pid)
        pair.wait_until(lambda: listener.managed == containers, f"{containers} containers managed", 60)
        time.sleep(WARM_UP_S)
        floor = stack.enter_context(running_floor(programs["floor"], groups))
        measured: dict[str, list[float]] = {"agent": [], "floor": []}
        for _ in range(turns):
            measured["agent"].append(_core_percent([agent, *agent.children()]))
            floor.send_signal(signal.SIGCONT)
            measured["floor"].append(_core_percent([psutil.Process(floor.pid)]))
            floor.send_signal(signal.SIGSTOP)
        memory, guards = agent.memory_full_info(), [g.memory_full_info() for g in agent.children()]
        descriptors = agent.num_fds()
    core, least = (statistics.median(measured[name]) for name in ("agent", "floor"))
    return {
        "containers": containers,
        "core_percent": round(core, 3),
        "c_floor_core_percent": round(least, 3),
        "ratio": round(core / least, 2),
        "rss_mib": round((memory.rss + sum(g.uss for g in guards)) / MIB, 1),
        "pss_mib": round((memory.pss + sum(g.pss for g in guards)) / MIB, 1),
        "descriptors": descriptors,
        "core_percent_turns": [round(turn, 3) for turn in measured["agent"]],
        "c_floor_core_percent_turns": [round(turn, 3) for turn in measured["floor"]],
    }


def kinds_of(containers: int) -> list[str]:
    """The names of the mix in their shares; what rounding leaves over is idle."""
    awake = {name: round(share * containers) for name, (share, _, _) in MIX.items() if name != "idle"}
    kinds = [name for name, count in awake.items() for _ in range(count)]
    return kinds + ["idle"] * (containers - len(kinds))


@contextlib.contextmanager
def running_floor(program: str, groups: list[KernelCgroup]) -> Iterator["subprocess.Popen[bytes]"]:
    """Stopped, with all files open."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as floor:
        assert floor.stdin is not None
        assert floor.stdout is not None
        lines = "".join(f"{' '.join(_files(group))}\n" for group in groups)
        floor.stdin.write(lines.encode())
        floor.stdin.close()
        floor.stdout.readline()
        floor.send_signal(signal.SIGSTOP)
        try:
            yield floor
        finally:
            floor.kill()


def _files(group: KernelCgroup) -> list[str]:
    """What is read of a container in every tick, then what is read of one that moves."""
    mounts = group.hierarchy.mounts
    if "cpu" not in mounts:
        return [f"{group.cpu}/{name}" for name in ("cpu.stat", "memory.current")]
    paths = [("cpuacct", "cpuacct.usage"), ("cpu", "cpu.stat"), ("memory", "memory.usage_in_bytes")]
    return [f"{mounts[controller]}/{group.path}/{name}" for controller, name in paths]


def _core_percent(processes: list[psutil.Process]) -> float:
    began, before = time.monotonic(), sum(map(_cpu_ns, processes))
    time.sleep(TURN_S)
    used = sum(map(_cpu_ns, processes)) - before
    return used / (time.monotonic() - began) / 1e7


def _cpu_ns(process: psutil.Process) -> int:
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
