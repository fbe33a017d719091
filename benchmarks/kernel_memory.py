"""The kernel's memory files of a cgroup, on either version: what Escra writes is checked against these."""

import contextlib
import errno
import threading
from collections.abc import Sequence
from pathlib import Path

from escra_agent.hierarchy import Hierarchy

NO_LIMIT = 1 << 62
TICK_S = 0.1


class KernelMemory:
    """``path`` is what Hierarchy.open takes; the cgroup may come and go."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self.v1 = "memory" in hierarchy.mounts
        self._directory = Path(hierarchy.mounts.get("memory") or str(hierarchy.unified), path.strip("/"))

    def limit(self) -> int | None:
        """In bytes, NO_LIMIT when there is none, None when the cgroup is not there."""
        try:
            text = self._read("memory.limit_in_bytes" if self.v1 else "memory.max")
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed while it was being read
                return None
            raise
        return NO_LIMIT if text == "max" else min(int(text), NO_LIMIT)

    def set_limit(self, size: int) -> None:
        """Of a new cgroup.  Swap would only delay a kill: there is none, where the kernel lets us say so."""
        self._write("memory.limit_in_bytes" if self.v1 else "memory.max", size)
        with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
            # K20: v1 limits memory and swap together, and never below the limit of memory.
            self._write(*(("memory.memsw.limit_in_bytes", size) if self.v1 else ("memory.swap.max", 0)))

    def used(self) -> int:
        return int(self._read("memory.usage_in_bytes" if self.v1 else "memory.current"))

    def oom_kills(self) -> int:
        lines = self._read("memory.oom_control" if self.v1 else "memory.events").splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def _read(self, name: str) -> str:
        return (self._directory / name).read_text().strip()

    def _write(self, name: str, value: int) -> None:
        if not (self._directory / name).exists():  # else open() would say EACCES: nothing can be made here
            raise FileNotFoundError(name)
        (self._directory / name).write_text(str(value))


class OmegaWatch:
    """Adds up limits every 100 ms in a thread of its own, while in its block.

    ``paths`` are the cgroups to look at now: those that Escra manages.  ``checks`` is how often there was
    something to add up, ``violations`` how often it was more than Ω.
    """

    def __init__(self, hierarchy: Hierarchy, omega_bytes: int) -> None:
        self.paths: Sequence[str] = ()
        self.checks = self.violations = 0
        self._hierarchy = hierarchy
        self._omega_bytes = omega_bytes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "OmegaWatch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(TICK_S):
            if paths := self.paths:
                memories = [KernelMemory(self._hierarchy, path) for path in paths]
                # A limit may move from one to the other between two files: what both passes saw was in force.
                passes = [[memory.limit() or 0 for memory in memories] for _ in range(2)]
                self.checks += 1
                self.violations += sum(map(min, *passes)) > self._omega_bytes
