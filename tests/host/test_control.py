"""The control loop on a host as people have it: limits in the kernel, the CLI, the journal."""

import time

import pytest

from tests.host.conftest import OMEGA, StartContainer, configure
from tests.host.target import Host

pytestmark = pytest.mark.host

ESCRA = "/opt/escra/bin/escra"
# The guest may have one slow processor: two ticks there are not 200 ms.
SOON_S = 2.0
# CPU limits in the kernel are whole microseconds of a period.
EXACT = 1e-4


def limits_told(host: Host) -> dict[str, float]:
    return {entry["name"]: entry["cpu"]["limit_cores"] for entry in host.json(f"{ESCRA} ps --json")}


def test_a_throttled_container_gets_more(host: Host, start: StartContainer) -> None:
    web = start("web", cpus=0.2)
    rows = host.watch([web.folder], SOON_S)
    assert max(limit for (limit,) in rows if limit is not None) > 0.25
    host.wait_until(f"test $(cut -d' ' -f1 {web.folder}/cpu.max) -gt 60000", 10)


def test_a_container_that_stops_working_gives_it_back(host: Host, start: StartContainer) -> None:
    idle = start("idle", cpus=0.5, busy=False)
    host.wait_until(f"test $(cut -d' ' -f1 {idle.folder}/cpu.max) -eq 5000", 6)  # its floor


def test_the_sum_never_passes_the_applications_limit(host: Host, start: StartContainer) -> None:
    groups = [start(name, cpus=0.1) for name in ("one", "two", "three")]
    host.wait_until(f'test $({ESCRA} ps --json | grep -c \'"state": "managed"\') -eq 3', 5)
    rows = host.watch([group.folder for group in groups], 5)
    sums = [sum(limits) for limits in rows if None not in limits]  # type: ignore[arg-type]
    assert len(sums) == len(rows), "a container without a limit"
    assert max(sums) <= OMEGA + EXACT
    assert max(sums) > 0.7 * OMEGA, "the pool is not used although all are throttled"


def test_escra_ps_agrees_with_the_kernel(host: Host, start: StartContainer) -> None:
    groups = [start(name, cpus=0.1) for name in ("left", "right")]
    host.wait_until(f'test $({ESCRA} ps --json | grep -c \'"state": "managed"\') -eq 2', 5)
    seen = []
    for _ in range(10):  # the loop goes on, and may move a limit, and back, while people are told
        before = host.watch([group.folder for group in groups], 0.1)[-1]
        told = limits_told(host)
        after = host.watch([group.folder for group in groups], 0.1)[0]
        seen.append((before, told, after))
        if before == after and [told[group.name] for group in groups] == pytest.approx(before, abs=0.001):
            return
    raise AssertionError(f"never the same: {seen}")


def test_the_journal_has_a_record_per_decision(host: Host, start: StartContainer) -> None:
    since = host.output("date +%s")
    start("talker", cpus=0.1)
    query = f"journalctl --since=@{since} ESCRA_APP=shop ESCRA_CONTAINER=talker -o json --no-pager"
    host.wait_until(f"{query} | grep -q ESCRA_NEW", 5)
    changes = [record for record in host.json_lines(query) if "ESCRA_NEW" in record]
    for record in changes:
        assert len(record["MESSAGE_ID"]) == 32
        assert record["ESCRA_HOST"]
        assert record["ESCRA_REASON"]
        assert "talker" in record["MESSAGE"]
        assert record["_SYSTEMD_UNIT"] in ("escra-controller.service", "escra-agent.service")
        assert float(record["ESCRA_NEW"]) <= {"cores": OMEGA, "bytes": 512 << 20}[record["ESCRA_UNIT"]]
    # Decisions, not samples: a handful per second at the very most.
    assert len(changes) < 100


def test_explain_says_why(host: Host, start: StartContainer) -> None:
    web = start("why", cpus=0.1)
    host.wait_until(f"test $(cut -d' ' -f1 {web.folder}/cpu.max) -gt 15000", 5)
    assert "throttled" in host.output(f"{ESCRA} explain why")


def test_reload_takes_a_new_limit(host: Host, start: StartContainer) -> None:
    web = start("shrinking", cpus=0.2)
    host.wait_until(f"test $(cut -d' ' -f1 {web.folder}/cpu.max) -gt 40000", 10)
    try:
        configure(host, omega=0.3)
        host.run("systemctl reload escra-controller")
        host.wait_until(f"test $(cut -d' ' -f1 {web.folder}/cpu.max) -le 30000", 5)
        (app,) = host.json(f"{ESCRA} apps --json")
        assert app["cpu"]["limit_cores"] == pytest.approx(0.3)
    finally:
        configure(host)
        host.run("systemctl reload escra-controller")


def test_reload_with_a_bad_file_changes_nothing_and_says_why(host: Host) -> None:
    since = host.output("date +%s")
    pid = host.output("systemctl show -P MainPID escra-controller")
    before = host.json(f"{ESCRA} apps --json")
    try:
        configure(host, omega="much")
        host.run("systemctl reload escra-controller", check=False)
        query = f"journalctl --since=@{since} -u escra-controller ESCRA_KIND=config_refused -o json"
        host.wait_until(f"{query} | grep -q MESSAGE", 5)
        record = host.json_lines(query)[-1]
        assert "much" in record["MESSAGE"]
        assert "apps.shop.cpu" in record["MESSAGE"]
        after = host.json(f"{ESCRA} apps --json")
        assert [app["cpu"]["limit_cores"] for app in after] == [app["cpu"]["limit_cores"] for app in before]
        assert host.output("systemctl is-active escra-controller") == "active"
        assert host.output("systemctl show -P MainPID escra-controller") == pid
    finally:
        configure(host)
        host.run("systemctl reload escra-controller")


def test_what_daemon_reload_puts_back_is_repaired(host: Host, start: StartContainer) -> None:
    web = start("drifting", cpus=0.1)
    host.wait_until(f"test $(cut -d' ' -f1 {web.folder}/cpu.max) -gt 30000", 10)
    since = host.output("date +%s")
    # K17: systemd writes its own value for every unit that it manages.
    rows = host.watch([web.folder], 3, first="systemctl daemon-reload")
    assert rows[-1][0] is not None
    assert rows[-1][0] > 0.2
    query = f"journalctl --since=@{since} ESCRA_KIND=drift_repaired ESCRA_CONTAINER=drifting -o json"
    host.wait_until(f"{query} | grep -q MESSAGE", 5)
    assert len(host.json_lines(query)) <= 2, "logged once per drift"


def test_a_service_takes_part_by_its_cgroup(host: Host) -> None:
    load = "systemd-run --quiet --unit escra-test-load -p CPUQuota=10% sh -c 'while :; do :; done'"
    try:
        host.run(load)
        folder = "/sys/fs/cgroup/system.slice/escra-test-load.service"
        host.wait_until(f"test $(cut -d' ' -f1 {folder}/cpu.max) -gt 15000", 8)
        assert "batch" in limits_told(host)
    finally:
        host.run("systemctl stop escra-test-load", check=False)
    deadline = time.monotonic() + 5
    while "batch" in limits_told(host):
        assert time.monotonic() < deadline, "a service that ended is still listed"
