"""What the doctor says of hosts that differ in one thing from one that is well."""

from dataclasses import replace
from typing import Any

import pytest

from escra_common.expiry import DAY_S, Expiry
from escra_controller.doctor.examination import status
from escra_controller.doctor.facts import Answer, Daemon, Docker, Facts, Finding, Folder, Host, Socket, Tls
from escra_controller.doctor.judgeservices import judge
from escra_controller.doctor.view import lines

HOST = Host("6.1.0-28-amd64", (6, 1), "v2", handed_down=frozenset({"cpu", "memory"}))
UNIT = {
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "MainPID": "100",
    "NRestarts": "0",
    "WatchdogUSec": "5s",
}
CONFIG = {"systemd": {"follow": True}, "listen": {"metrics": "127.0.0.1:9737"}}
AGENT = Daemon(
    "agent",
    "/etc/escra/agent.toml",
    CONFIG,
    unit=UNIT,
    lock_holder=100,
    state=Folder("/var/lib/escra-agent"),
    tls=Tls([Expiry("this agent's certificate", 0, 300 * DAY_S)], key="/etc/escra/agent.key"),
)
CONTROLLER = replace(AGENT, name="controller", config_path="/etc/escra/controller.toml")
WELL = Facts(
    HOST,
    [AGENT, CONTROLLER],
    Docker("/run/docker.sock", version="20.10.24", driver="systemd"),
    {"docker-1.scope": True},
    [Answer("192.0.2.1:7737", "", "escra 0.1.0", "ctl")],
    Socket("/run/escra/controller.sock", problems=()),
    metrics_error="",
    now=100 * DAY_S,
)


def on(**different: Any) -> Facts:
    return replace(WELL, host=replace(HOST, **different))


def agent(**different: Any) -> Facts:
    return replace(WELL, daemons=[replace(AGENT, **different)])


def unit(**different: str) -> Facts:
    return agent(unit=UNIT | different)


def problems(facts: Facts) -> list[Finding]:
    return [finding for finding in judge(facts) if finding.severity != "ok"]


def test_a_host_that_is_well() -> None:
    assert problems(WELL) == []
    assert status(judge(WELL)) == 0
    assert lines(judge(WELL))[-1] == "All is well."


@pytest.mark.parametrize(
    ("facts", "check", "severity", "text"),
    [
        (on(version=(5, 4)), "kernel", "warn", "memory is left alone"),
        (on(version=(4, 19), cgroup="v1", handed_down=None), "kernel", "warn", "unused quota expires"),
        (on(cgroup=""), "cgroup", "bad", "nothing to manage"),
        (on(read_only=True), "cgroup", "bad", "read-only"),
        (on(controllers=frozenset({"memory"})), "controllers", "bad", "no cpu controller"),
        (on(controllers=frozenset({"cpu"})), "controllers", "warn", "no memory controller"),
        (on(handed_down=frozenset({"memory"})), "controllers", "warn", "not given cpu"),
        (on(quota=False), "quota", "bad", "CONFIG_CFS_BANDWIDTH"),
        (on(swap_total_bytes=1 << 30, swap_limits=False), "swap", "warn", "1.0GiB of swap"),
        (on(clock_synchronised=False), "clock", "warn", "not synchronised"),
        (on(clock_source="hpet"), "clocksource", "warn", "hpet"),
        (on(open_files=(99, 100)), "files", "bad", "99 of 100"),
        (on(superuser=False), "rights", "warn", "not root"),
        (on(processes=frozenset({"koordlet", "bash"})), "others", "warn", "koordlet runs here"),
        (on(processes=frozenset({"systemd-oomd"})), "others", "warn", "kills whole cgroups"),
        (replace(WELL, docker=Docker("/x", "refused")), "docker", "warn", "no answer at /x: refused"),
        (replace(WELL, docker=Docker("/x", rootless=True)), "docker", "warn", "rootless"),
        (replace(WELL, docker=Docker("/x", driver="cgroupfs")), "driver", "warn", "two programs"),
        (replace(WELL, daemons=[]), "installed", "bad", "neither"),
        (agent(config=None, config_error="agent.toml: no"), "agent-config", "bad", "agent.toml: no"),
        (agent(unit=None), "agent-service", "warn", "process 100 runs, not as a unit"),
        (agent(lock_holder=7), "agent-lock", "bad", "process 7 holds the agent's lock"),
        (unit(ActiveState="failed", ExecMainStatus="78"), "agent-service", "bad", "configuration"),
        (unit(ActiveState="inactive"), "agent-service", "bad", "is inactive"),
        (unit(WatchdogUSec="infinity"), "agent-service", "warn", "no watchdog"),
        (unit(NRestarts="4"), "agent-service", "warn", "started again 4 times"),
        (unit(UnitFileState="disabled"), "agent-service", "warn", "not after a reboot"),
        (agent(state=Folder("/s", read_only=True)), "agent-state", "bad", "read-only"),
        (agent(state=Folder("/s", free_bytes=1 << 20)), "agent-state", "bad", "1.0MiB free"),
        (agent(state=Folder("/s", free_bytes=100 << 20)), "agent-state", "warn", "100.0MiB free"),
        (agent(state=Folder("/s", mode=0o777)), "agent-state", "bad", "mode 777"),
        (agent(state=Folder("/s", ahead_s=3600)), "agent-state", "warn", "put back by 60 minutes"),
        (agent(tls=Tls(error="a key of another")), "agent-tls", "bad", "a key of another"),
        (agent(tls=Tls(key="/k", key_mode=0o644)), "agent-tls", "bad", "/k has mode 644"),
        (agent(tls=Tls([Expiry("it", 0, 110 * DAY_S)])), "agent-tls", "warn", "it ends in 10 days"),
        (agent(tls=Tls([Expiry("it", 0, 90 * DAY_S)])), "agent-tls", "bad", "it ended on"),
        (agent(tls=Tls(unseen="/k: permission denied")), "agent-tls", "warn", "permission denied"),
        (agent(unit=None, lock_holder=None), "reload", "warn", "1 units still have its files"),
        (agent(config={"systemd": {"follow": False}}), "reload", "warn", "follow = false"),
        (replace(WELL, follow={"docker-2.scope": False}), "reload", "warn", "docker-2.scope"),
        (replace(WELL, answers=[Answer("c:1", "refused")]), "reach", "bad", "controller c:1: refused"),
        (
            replace(WELL, answers=[Answer("c:1", "refused"), Answer("d:1", "", "escra 1", "d")]),
            "reach",
            "warn",
            "controller c:1: refused",
        ),
        (replace(WELL, answers=[Answer("c:1", standby=True)]), "reach", "bad", "nobody leads"),
        (replace(WELL, socket=Socket("/s", error="nothing listens")), "answers", "bad", "nothing listens"),
        (replace(WELL, socket=Socket("/s", problems=["web is lost"])), "answers", "warn", "web is lost"),
        (replace(WELL, socket=Socket("/s", problems=(), group=False)), "group", "warn", "no group escra"),
        (replace(WELL, metrics_error="refused"), "metrics", "warn", "127.0.0.1:9737: refused"),
    ],
    ids=str,
)
def test_one_thing_wrong(facts: Facts, check: str, severity: str, text: str) -> None:
    found = [f for f in problems(facts) if f.check == check]
    assert [f.severity for f in found] == [severity], problems(facts)
    assert text in found[0].found
    assert found[0].advice, "there is always something to do"
    assert status(judge(facts)) in {"bad": [1], "warn": [5, 1]}[severity]


def test_a_host_without_systemd_needs_no_units() -> None:
    facts = replace(agent(unit=None), host=replace(HOST, systemd=False), follow={})
    assert problems(facts) == []


def test_the_view() -> None:
    shown = lines([Finding("kernel", "ok", "fine"), Finding("swap", "bad", "no\x1b[2J", "swapoff -a")])
    assert shown == [
        "ok    kernel  fine",
        "BAD   swap    no?[2J",
        "              -> swapoff -a",
        "",
        "1 bad.",
    ]
