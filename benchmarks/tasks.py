"""Many cgroups with a task in each, and the C programs that the benchmarks build."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup

HERE = Path(__file__).parent


@contextlib.contextmanager
def built(*names: str) -> Iterator[dict[str, str]]:
    """The C programs of these names, by name."""
    if shutil.which("cc") is None:
        raise SystemExit("no C compiler: install one (Debian: gcc, libc6-dev)")
    with tempfile.TemporaryDirectory(prefix="escra-bench-") as folder:
        programs = {name: f"{folder}/{name}" for name in names}
        for name, program in programs.items():
            command = ["cc", "-O2", "-Wall", "-Wextra", "-o", program, str(HERE / f"{name}.c")]
            subprocess.run(command, check=True)
        yield programs


@contextlib.contextmanager
def numbered_cgroups(hierarchy: Hierarchy, count: int) -> Iterator[list[KernelCgroup]]:
    with contextlib.ExitStack() as stack:
        groups = []
        for n in range(count):
            groups.append(KernelCgroup(hierarchy, f"escra-bench-{os.getpid()}-{n}"))
            stack.callback(groups[-1].remove)
        yield groups


@contextlib.contextmanager
def running_tasks(program: str, tasks: Iterable[tuple[KernelCgroup, tuple[int, int]]]) -> Iterator[None]:
    """In each cgroup one that sleeps and works in turns, for so many microseconds (tasks.c)."""
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for group, (pause_us, work_us) in tasks:
            files = " ".join(str(directory / "cgroup.procs") for directory in group.directories)
            process.stdin.write(f"{pause_us} {work_us} {files}\n".encode())
        process.stdin.flush()
        try:
            yield
        finally:
            process.stdin.close()
