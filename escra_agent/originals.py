"""The limits found before the first write, on disk before that write is made.

What Escra stops managing gets its original back, also after a ``kill -9``; so a limit that
is not recorded here is never changed.  An entry is bound to one incarnation of a cgroup (its
inode) in one boot of the host.
"""

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from escra_agent.cgroupfs import Cgroup, describe, write_rank
from escra_agent.errors import CgroupGone
from escra_agent.hierarchy import Hierarchy
from escra_agent.memorycut import give_back, stand_down
from escra_agent.memorygroup import describe_memory
from escra_agent.parts import Part
from escra_common.atomicfile import write_atomically
from escra_common.errors import EscraError
from escra_common.messages import CpuLimit, MemoryLimit

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StoreError(EscraError):
    """The record cannot be read or written; nothing may be limited until it can."""


@dataclass(frozen=True, slots=True)
class Original:
    """``key`` and ``paths`` are the Cgroup's, ``path`` is for people, ``id`` and ``name`` the container's.

    Without ``memory`` its memory limit was never changed, nor its OOM killer.
    """

    key: int
    id: str
    name: str
    path: str
    boot_id: str
    limit: CpuLimit
    paths: Mapping[str, str]
    memory: MemoryLimit | None = None


class OriginalsStore:
    """One JSON file, replaced as a whole: it is complete at every instant, power failures included.

    Every change is on disk when the call returns, which takes some milliseconds.  When it
    raises StoreError nothing has changed, on disk or in memory.
    """

    def __init__(self, path: str | os.PathLike[str], boot_id: str | None = None) -> None:
        self.path = Path(path)
        self.boot_id = BOOT_ID.read_text().strip() if boot_id is None else boot_id
        self._entries: dict[int, Original] = {}

    def load(self) -> list[str]:
        """Read the file; what people should know comes back as messages.

        No file is an empty store.  A damaged one is set aside as ``.damaged-N``.  Entries of
        another boot are dropped: their cgroups are gone, and their inodes mean others now.
        """
        self._entries = {}
        try:
            entries = msgspec.json.decode(self.path.read_bytes(), type=list[Original])
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            aside = self._set_aside()
            return [
                f"{self.path} is damaged ({error}) and now called {aside.name}; containers that an earlier "
                "agent limited keep those limits, and `docker update` or a restart gives them their own"
            ]
        current = [entry for entry in entries if entry.boot_id == self.boot_id]
        self._entries = {entry.key: entry for entry in current}
        dropped = len(entries) - len(current)
        return [f"{dropped} original limits from before the last reboot were dropped"] if dropped else []

    def remember(self, *originals: Original) -> None:
        """Add or replace; several at once cost one write to disk."""
        self._replace(self._entries | {original.key: original for original in originals})

    def forget(self, *keys: int) -> None:
        """Unknown keys are forgotten already."""
        self._replace({key: entry for key, entry in self._entries.items() if key not in keys})

    def get(self, key: int) -> Original | None:
        return self._entries.get(key)

    def all(self) -> list[Original]:
        return list(self._entries.values())

    def _replace(self, entries: dict[int, Original]) -> None:
        if entries == self._entries:
            return
        body = msgspec.json.format(msgspec.json.encode(list(entries.values())), indent=1)
        try:
            write_atomically(self.path, body)
        except OSError as error:
            raise StoreError(
                f"cannot record original limits in {self.path}: {error.strerror}; "
                "no further limit is changed until this works"
            ) from error
        self._entries = entries

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        try:
            self.path.rename(aside)
        except OSError as error:
            raise StoreError(f"cannot set the damaged {self.path} aside: {error.strerror}") from error
        return aside


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one original; ``text`` says it to people."""

    original: Original
    result: Literal["restored", "gone", "failed"]
    text: str


def restore_all(store: OriginalsStore, hierarchy: Hierarchy, keep: Container[int] = ()) -> list[Outcome]:
    """Put every original limit back and forget it, except those whose key is in ``keep``.

    What is gone, or has another cgroup under its name, is forgotten.  What fails is kept for
    the next time, and does not stop the others.  Raises StoreError only after all were tried.
    """
    outcomes: list[Outcome] = []
    opened: list[tuple[Original, Cgroup, CpuLimit]] = []
    for original in store.all():
        if original.key in keep:
            continue
        try:
            opened.append((original, *_reopen(original, hierarchy)))
        except EscraError as error:
            outcomes.append(_failure(original, error))
    opened.sort(key=lambda item: write_rank(item[2], item[0].limit, item[1].depth))
    for original, cgroup, _ in opened:
        outcomes.append(_restore(original, cgroup))
        cgroup.close()
    store.forget(*(outcome.original.key for outcome in outcomes if outcome.result != "failed"))
    return outcomes


def disarm_all(store: OriginalsStore, hierarchy: Hierarchy) -> list[str]:
    """Let no task of what is recorded wait for us (see stand_down); what failed, for people."""
    failures = []
    for original in store.all():
        try:
            cgroup, _ = _reopen(original, hierarchy)
            try:
                if original.memory is not None and cgroup.memory_group is not None:
                    stand_down(cgroup.memory_group, original.memory)
            finally:
                cgroup.close()
        except CgroupGone:
            continue
        except EscraError as error:
            failures.append(str(error))
    return failures


def complete_all(store: OriginalsStore, hierarchy: Hierarchy, parts: Mapping[int, Part]) -> list[str]:
    """Write whole limits where a killed agent left but what one had of a period; what failed, for people.

    Where the kernel holds something else by now, it stays.
    """
    failures = []
    opened: list[tuple[Part, Cgroup]] = []
    for original in store.all():
        if (part := parts.get(original.key)) is None:
            continue
        try:
            cgroup, held = _reopen(original, hierarchy)
        except CgroupGone:
            continue
        except EscraError as error:
            failures.append(str(error))
            continue
        if held == part.left:
            opened.append((part, cgroup))
        else:
            cgroup.close()
    opened.sort(key=lambda item: write_rank(item[0].left, item[0].whole, item[1].depth))
    for part, cgroup in opened:
        try:
            cgroup.write_limit(part.whole)
        except CgroupGone:
            pass
        except EscraError as error:
            failures.append(str(error))
        finally:
            cgroup.close()
    return failures


def _restore(original: Original, cgroup: Cgroup) -> Outcome:
    """CPU and memory, each also when the other fails."""
    texts, failures = [], []
    group = cgroup.memory_group
    if original.memory is not None and group is not None:
        try:
            in_force, reason = give_back(group, original.memory)
            failures += [reason] if reason else []
            texts.append(f"memory {describe_memory(in_force)}")
        except EscraError as error:
            failures.append(str(error))
    try:
        texts.insert(0, describe(cgroup.write_limit(original.limit)))
    except CgroupGone as error:
        return _failure(original, error)
    except EscraError as error:
        failures.append(str(error))
    if failures:
        return Outcome(original, "failed", "; ".join(failures))
    return Outcome(original, "restored", ", ".join(texts))


def _reopen(original: Original, hierarchy: Hierarchy) -> tuple[Cgroup, CpuLimit]:
    cgroup = hierarchy.open_paths(original.paths)
    try:
        if cgroup.key != original.key:
            raise CgroupGone(f"cgroup {original.path} was made anew since its limit was recorded")
        return cgroup, cgroup.read_limit()
    except EscraError:
        cgroup.close()
        raise


def _failure(original: Original, error: EscraError) -> Outcome:
    return Outcome(original, "gone" if isinstance(error, CgroupGone) else "failed", str(error))
