"""The record of original limits survives what happens to files, and the limits come back from it."""

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from escra_agent.originals import Original, OriginalsStore, StoreError, restore_all
from escra_common.messages import CpuLimit
from tests.kernel_cgroups import KernelCgroup, limit

WEB = Original(11, "abc", "web", "/docker/abc", "boot-1", CpuLimit(50_000, 100_000), {"": "/docker/abc"})
DB = Original(12, "def", "db", "/docker/def", "boot-1", CpuLimit(None, 100_000, 0), {"": "/docker/def"})


def store(path: Path, boot_id: str = "boot-1") -> OriginalsStore:
    return OriginalsStore(path / "originals.json", boot_id)


def test_what_is_remembered_is_there_for_the_next_agent(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert first.load() == []
    first.remember(WEB, DB)
    second = store(tmp_path)
    assert second.load() == []
    assert second.all() == [WEB, DB]
    assert second.get(11) == WEB
    assert second.get(99) is None
    second.forget(11, 99)
    third = store(tmp_path)
    third.load()
    assert third.all() == [DB]


def test_entries_of_another_boot_are_dropped(tmp_path: Path) -> None:
    store(tmp_path).remember(WEB, dataclasses.replace(DB, boot_id="boot-2"))
    later = store(tmp_path, "boot-2")
    (message,) = later.load()
    assert "1 original limits from before the last reboot" in message
    assert [entry.name for entry in later.all()] == ["db"]


def test_the_boot_id_is_this_hosts(tmp_path: Path) -> None:
    one, other = (OriginalsStore(tmp_path / "originals.json") for _ in range(2))
    assert one.boot_id == other.boot_id
    assert len(one.boot_id) == 36


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'[{"key": 1}]',
        b"\xff\xfe",
        b"null",
        b'[{"key": "x"}]',
        b"\0" * 512,
        b'[{"x":' + b"[" * 5000,
    ],
)
def test_a_damaged_file_is_set_aside_and_work_goes_on(tmp_path: Path, body: bytes) -> None:
    damaged = store(tmp_path)
    damaged.path.write_bytes(body)
    (message,) = damaged.load()
    assert "originals.json.damaged-1" in message
    assert (tmp_path / "originals.json.damaged-1").read_bytes() == body
    assert damaged.all() == []
    damaged.remember(WEB)
    damaged.path.write_bytes(body)
    (message,) = damaged.load()
    assert "originals.json.damaged-2" in message


def test_a_file_cut_at_any_byte_is_never_taken_for_a_shorter_record(tmp_path: Path) -> None:
    store(tmp_path).remember(WEB, DB)
    body = (tmp_path / "originals.json").read_bytes()
    for length in range(len(body)):
        (tmp_path / "originals.json").write_bytes(body[:length])
        cut = store(tmp_path)
        assert len(cut.load()) == 1
        assert cut.all() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_full_disk_changes_nothing_and_says_so(tmp_path: Path) -> None:
    full = store(tmp_path)
    full.remember(WEB)
    (tmp_path / "originals.json.new").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        full.remember(DB)
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        full.forget(11)
    assert full.all() == [WEB]
    again = store(tmp_path)
    again.load()
    assert again.all() == [WEB]


def test_a_missing_state_directory_is_made_and_one_that_cannot_be_is_named(tmp_path: Path) -> None:
    store(tmp_path / "state").remember(WEB)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match=r"cannot record original limits in .*file"):
        store(tmp_path / "file").remember(WEB)


def test_a_kill_at_any_moment_leaves_a_whole_record(tmp_path: Path) -> None:
    program = (
        "from tests.agent.test_originals import *\n"
        "import itertools\n"
        f"s = store(Path({str(tmp_path)!r}))\n"
        "for n in itertools.count(1):\n"
        "    s.remember(*(dataclasses.replace(WEB, key=k) for k in range(1, n % 300 + 2)))\n"
        "    print(n, flush=True)\n"
    )
    root = Path(__file__).parents[2]
    for kill_after in (1, 3, 7):
        with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(kill_after):
                assert process.stdout.readline()
            process.kill()
        found = store(tmp_path)
        assert found.load() == []
        assert len(found.all()) >= kill_after


def original_of(cgroup: KernelCgroup) -> Original:
    opened = cgroup.open()
    limit_now, paths = opened.read_limit(), opened.paths
    opened.close()
    return Original(opened.key, cgroup.path, cgroup.path, opened.path, "boot-1", limit_now, paths)


@pytest.mark.kernel
@pytest.mark.parametrize(("parent_now", "child_now"), [(0.3, 0.2), (2.0, 1.5)])
def test_limits_come_back_in_an_order_the_kernel_takes(
    cgroup: KernelCgroup, tmp_path: Path, parent_now: float, child_now: float
) -> None:
    parent, child = cgroup.open(), cgroup.child("child").open()
    parent.write_limit(limit(0.8))
    child.write_limit(limit(0.7, period_usec=50_000, burst_usec=10_000))
    record = store(tmp_path)
    record.remember(original_of(cgroup), original_of(cgroup.children[0]))
    child.write_limit(limit(0.1))
    parent.write_limit(limit(parent_now))
    child.write_limit(limit(child_now))
    outcomes = restore_all(record, cgroup.hierarchy)
    assert [outcome.result for outcome in outcomes] == ["restored", "restored"]
    assert parent.read_limit() == limit(0.8)
    assert child.read_limit() == limit(0.7, period_usec=50_000, burst_usec=10_000)
    assert record.all() == known(tmp_path) == []


def known(path: Path) -> list[Original]:
    read = store(path)
    read.load()
    return read.all()


@pytest.mark.kernel
def test_what_is_gone_or_made_anew_is_forgotten_untouched(cgroup: KernelCgroup, tmp_path: Path) -> None:
    gone, anew = cgroup.child("gone"), cgroup.child("anew")
    record = store(tmp_path)
    record.remember(original_of(gone), original_of(anew))
    gone.remove()
    anew.remove()
    again = cgroup.child("anew")
    again.open().write_limit(limit(0.3))
    outcomes = restore_all(record, cgroup.hierarchy)
    assert [outcome.result for outcome in outcomes] == ["gone", "gone"]
    assert any("made anew" in outcome.text for outcome in outcomes)
    assert again.open().read_limit() == limit(0.3)
    assert record.all() == known(tmp_path) == []


@pytest.mark.kernel
def test_a_failure_is_kept_and_leaves_the_others_alone(cgroup: KernelCgroup, tmp_path: Path) -> None:
    good, bad = cgroup.child("good"), cgroup.child("bad")
    good.open().write_limit(limit(0.5))
    record = store(tmp_path)
    impossible = dataclasses.replace(original_of(bad), limit=CpuLimit(1, 100_000))
    record.remember(impossible, original_of(good))
    good.open().write_limit(limit(0.1))
    outcomes = {outcome.original.path: outcome for outcome in restore_all(record, cgroup.hierarchy)}
    assert outcomes[impossible.path].result == "failed"
    assert "at least 1 ms" in outcomes[impossible.path].text
    assert good.open().read_limit() == limit(0.5)
    assert record.all() == known(tmp_path) == [impossible]
