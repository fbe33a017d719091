"""Growth episodes: a process that grows inside a cgroup, and how it ended."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.kernel_memory import KernelMemory
from tests.kernel_cgroups import KernelCgroup

HERE = Path(__file__).parent
VARIETIES = tuple(itertools.product(("steady", "staircase", "burst"), ("c", "python"), (1, 4)))
# Held before the growth begins: an episode is about growth, not about starting a program.
BASE_MIB = 48
LIMIT_BYTES = 64 << 20
START_S = 20.0
# No episode lasts longer than 3 s by itself.
STUCK_S = 15.0


class NoCompiler(SystemExit):
    """grow.c cannot be built here."""


Programs = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Growth:
    shape: str
    program: str
    threads: int
    mib_per_s: int

    @property
    def amount_mib(self) -> int:
        """Past the limit in any case; a fast one lasts 0.2 to 0.5 s, a slow one 2 s."""
        return min(192, max(32, self.mib_per_s // 2))


@dataclass(frozen=True, slots=True)
class Outcome:
    """``stuck``: it neither grew nor ended; ``failed``: it ended by itself, with an error.

    ``stalls_ms`` are those of more than 1 ms.
    """

    growth: Growth
    end: Literal["survived", "killed", "stuck", "failed"]
    seconds: float = 0.0
    stalls_ms: tuple[float, ...] = ()


def growths(mib_per_s: int, episodes: int) -> list[Growth]:
    """All varieties in turns."""
    return [Growth(*variety, mib_per_s) for variety in itertools.islice(itertools.cycle(VARIETIES), episodes)]


@contextlib.contextmanager
def built_programs() -> Iterator[Programs]:
    """The command of each program.  ESCRA_GROW names a compiled grow.c, for a host without a compiler."""
    with tempfile.TemporaryDirectory(prefix="escra-grow-") as folder:
        grow = os.environ.get("ESCRA_GROW") or f"{folder}/grow"
        if "ESCRA_GROW" not in os.environ:
            if shutil.which("cc") is None:
                raise NoCompiler("no C compiler: install one (Debian: gcc, libc6-dev), or set ESCRA_GROW")
            build(grow)
        # -P: our numbers.py is not the standard library's.
        yield {"c": [grow], "python": [sys.executable, "-P", str(HERE / "grow.py")]}


def build(grow: str) -> None:
    """Static, so that it uses nothing but what it touches, and runs on any host of this architecture."""
    source = str(HERE / "grow.c")
    subprocess.run(["cc", "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-o", grow, source], check=True)


class Episode:
    """One growth in ``group``: it starts at once, holds its base and waits for ``go``."""

    def __init__(
        self, group: KernelCgroup, growth: Growth, programs: Programs, report: Path, base_mib: int = BASE_MIB
    ) -> None:
        self.growth = growth
        self.memory = KernelMemory(group.hierarchy, group.path)
        self._report = report
        report.unlink(missing_ok=True)
        how = "touch" if self.memory.v1 else "populate"
        numbers = (growth.mib_per_s, base_mib, growth.amount_mib, growth.threads)
        command = [*programs[growth.program], how, growth.shape, *map(str, numbers), str(report)]
        self._process = group.start(*command)

    def wait_ready(self) -> None:
        """Until it has its base, or has ended before."""
        end = time.monotonic() + START_S
        while not self._report.exists() and self.running and time.monotonic() < end:
            time.sleep(0.005)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def go(self) -> None:
        self._process.send_signal(signal.SIGUSR1)

    def outcome(self) -> Outcome:
        """Waits for the end."""
        try:
            status = self._process.wait(STUCK_S)
        except subprocess.TimeoutExpired:
            return Outcome(self.growth, "stuck")
        if status == -signal.SIGKILL and self.memory.oom_kills():
            return Outcome(self.growth, "killed")
        if status:
            return Outcome(self.growth, "failed")
        said = json.loads(self._report.read_text())
        return Outcome(self.growth, "survived", said["seconds"], tuple(said["stalls_ms"]))
