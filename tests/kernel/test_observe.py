"""Both daemons beside real load that they only observe: the kernel hears nothing of it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pair import Pair, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import KernelCgroup, limit, throwaway

pytestmark = pytest.mark.kernel

IN_MODIFY = 2
LIMITS = (
    *("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.max", "cpu.max.burst"),
    *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control", "memory.force_empty"),
    *("memory.max", "memory.high", "memory.swap.max", "memory.reclaim"),
)


class Watch:
    """Hears of every write to the limits of a cgroup, also of one that changes nothing."""

    def __init__(self, group: KernelCgroup) -> None:
        self.files = [d / name for d in group.directories for name in LIMITS if (d / name).exists()]
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        for file in self.files:
            assert libc.inotify_add_watch(self._inotify, os.fsencode(file), IN_MODIFY) >= 0

    def writes(self) -> int:
        """Since the call before."""
        try:
            return len(os.read(self._inotify, 1 << 16)) // 16
        except BlockingIOError:
            return 0

    def values(self) -> dict[str, str]:
        acts = ("memory.force_empty", "memory.reclaim")
        return {file.name: file.read_text() for file in self.files if file.name not in acts}

    def close(self) -> None:
        os.close(self._inotify)


CONTROLLER = 'grace_s = 0.2\n[apps.shop]\ncpu = 1.5\nmemory = "1GiB"\n'


def agent_toml(group: KernelCgroup, mode: str, entry: str) -> str:
    return (
        f'mode = "{mode}"\n[docker]\nenabled = false\n'
        f'[[cgroup]]\npath = "{group.path}"\napp = "shop"\nname = "a"\nmode = "{entry}"\n'
    )


@pytest.fixture
def group(hierarchy: Hierarchy) -> Iterator[KernelCgroup]:
    with throwaway(hierarchy) as made:
        made.open().write_limit(limit(0.4))
        yield made


@contextlib.contextmanager
def watched(group: KernelCgroup) -> Iterator[Watch]:
    watch = Watch(group)
    try:
        yield watch
    finally:
        watch.close()


def reload(pair: Pair, name: str, text: str) -> None:
    pair.write_config(name, text)
    pair.processes[name].send_signal(signal.SIGHUP)


def has_state(pair: Pair, state: str) -> bool:
    return bool(pair.rows().get("a", {}).get("state") == state)


def would_have_more(pair: Pair) -> bool:
    would = pair.rows()["a"]["would"]
    return bool(would and (would["cpu"]["limit_cores"] or 0) > 0.4 and would["memory"]["limit_bytes"])


@pytest.mark.parametrize("by", ["label", "app", "agent"])
def test_what_is_observed_is_never_written_to(group: KernelCgroup, by: str, tmp_path: Path) -> None:
    controller = CONTROLLER + ('mode = "observe"\n' if by == "app" else "")
    agent = agent_toml(group, "observe" if by == "agent" else "auto", "observe" if by == "label" else "auto")
    group.busy(2)
    with watched(group) as watch, running_pair(controller, agent) as pair:
        before = watch.values()
        pair.wait_until(lambda: has_state(pair, "observe"), "observed")
        pair.wait_until(lambda: would_have_more(pair), "it would have more")
        events = pair.ask("events", limit=100)
        assert {"newcomer", "throttled"} <= {event["rule"] for event in events}
        assert all(event["observed"] for event in events)
        assert watch.values() == before
        assert watch.writes() == 0
        totals = pair.ask("agents")[0]
        assert (totals["writes"], totals["memory_writes"]) == (0, 0)
        if by == "label":
            look(pair, tmp_path / "shop.rec")
        assert "would change" in (pair.folder / "controller.log").read_text()
        group.cpu.joinpath(
            next(f.name for f in watch.files if f.name in ("cpu.cfs_quota_us", "cpu.max"))
        ).write_text("40000")
        assert watch.writes() == 1, "such a write would have been seen"


def test_a_reload_begins_and_ends_observing(group: KernelCgroup) -> None:
    group.busy(2)
    cgroup = group.open()
    with running_pair(CONTROLLER, agent_toml(group, "auto", "auto")) as pair:
        pair.wait_managed("a")
        pair.wait_until(lambda: cgroup.read_limit() != limit(0.4), "its limit moves")
        reload(pair, "agent", agent_toml(group, "observe", "auto"))
        pair.wait_until(lambda: has_state(pair, "observe"), "observed by its host")
        assert cgroup.read_limit() == limit(0.4)
        reload(pair, "agent", agent_toml(group, "auto", "auto"))
        pair.wait_managed("a")
        pair.wait_until(lambda: cgroup.read_limit() != limit(0.4), "its limit moves again")
        reload(pair, "controller", CONTROLLER + 'mode = "observe"\n')
        pair.wait_until(lambda: has_state(pair, "observe"), "observed for its application")
        pair.wait_until(lambda: cgroup.read_limit() == limit(0.4), "its limit is back")


def look(pair: Pair, recording: Path) -> None:
    """As people do."""
    where = ("--socket", str(pair.control))
    assert "It is only observed: nothing is written." in escra("explain", "a", *where)
    assert "observe" in escra("ps", *where)
    assert "1 observe" in escra("apps", *where)
    assert "1 container (1 only observed)" in escra("status", *where)
    assert str(recording) in escra("record", str(recording), "--seconds", "1", *where)
    assert "static" in escra("replay", str(recording), "--policy", "static")


def escra(*arguments: str) -> str:
    command = [sys.executable, "-m", "escra_controller.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
