"""What the daemons of this host, their files and their neighbours look like.  Pure."""

from collections.abc import Iterator
from typing import Any

from escra_common.units import format_bytes
from escra_controller.doctor.facts import Daemon, Facts, Finding, Folder, Severity, Socket, Tls
from escra_controller.doctor.judgehost import judge as judge_host
from escra_controller.doctor.judgehost import judge_docker

LEAST_FREE = 10 << 20
LITTLE_FREE = 200 << 20
# A file from this far in the future was written before the clock was put back.
AHEAD_S = 60.0


def judge(facts: Facts) -> list[Finding]:
    """Everything there is to say, in the order people read it: the host, then what runs on it."""
    findings = list(judge_host(facts.host))
    if facts.docker is not None:
        findings += judge_docker(facts.docker, systemd=facts.host.systemd)
    if not facts.daemons:
        findings.append(
            Finding(
                "installed",
                "bad",
                "neither /etc/escra/agent.toml nor controller.toml is here, and no unit of either",
                "install as the README says, or name other files with --agent and --controller",
            )
        )
    for daemon in facts.daemons:
        findings += _daemon(daemon, facts)
    findings += _follow(facts)
    findings += _answers(facts)
    if facts.socket is not None:
        findings += _socket(facts.socket)
    return findings


def _daemon(daemon: Daemon, facts: Facts) -> Iterator[Finding]:
    name = daemon.name
    if daemon.config is None:
        yield Finding(
            f"{name}-config",
            "bad",
            daemon.config_error,
            f"escra-{name} check-config --config {daemon.config_path}",
        )
    else:
        yield Finding(f"{name}-config", "ok", f"{daemon.config_path} can be used")
    yield _service(daemon, systemd=facts.host.systemd)
    yield from _lock(daemon)
    if daemon.state is not None:
        yield from _folder(f"{name}-state", daemon.state, name)
    if daemon.tls is not None:
        yield from _tls(f"{name}-tls", daemon.tls, facts.now)
    if name == "controller" and facts.metrics_error is not None and daemon.running:
        yield _metrics(daemon.config or {}, facts.metrics_error)


def _service(daemon: Daemon, *, systemd: bool) -> Finding:
    check, unit = f"{daemon.name}-service", f"escra-{daemon.name}"
    if daemon.unit is None:
        if daemon.running:
            severity: Severity = "warn" if systemd else "ok"
            advice = _install(unit) if systemd else ""
            return Finding(check, severity, f"process {daemon.lock_holder} runs, not as a unit", advice)
        if not systemd:
            return Finding(check, "warn", "does not run, and there is no systemd to start it", f"{unit} run")
        return Finding(check, "warn", f"there is no unit {unit}.service", _install(unit))
    state = daemon.unit.get("ActiveState", "unknown")
    if state == "failed":
        status = daemon.unit.get("ExecMainStatus", "?")
        why = "its configuration cannot be used" if status == "78" else f"exit status {status}"
        return Finding(check, "bad", f"{unit} failed: {why}", f"journalctl -u {unit} -n 20")
    if state != "active":
        return Finding(check, "bad", f"{unit} is {state}", f"systemctl enable --now {unit}")
    if daemon.unit.get("WatchdogUSec", "0") in ("0", "infinity"):
        return Finding(
            check,
            "warn",
            f"{unit} has no watchdog: a loop that hangs is not noticed",
            f"take WatchdogSec= out of the drop-ins that systemctl cat {unit} shows",
        )
    restarts = daemon.unit.get("NRestarts", "0")
    if restarts != "0":
        return Finding(
            check,
            "warn",
            f"{unit} runs, and was started again {restarts} times",
            f"journalctl -u {unit} -p warning",
        )
    if daemon.unit.get("UnitFileState") == "disabled":
        return Finding(check, "warn", f"{unit} runs, and will not after a reboot", f"systemctl enable {unit}")
    said = daemon.unit.get("StatusText", "")
    return Finding(check, "ok", f"{unit} runs" + (f" ({said})" if said else ""))


def _install(unit: str) -> str:
    return f"install systemd/{unit}.service as the README says"


def _lock(daemon: Daemon) -> Iterator[Finding]:
    main = (daemon.unit or {}).get("MainPID", "0")
    if (
        daemon.lock_holder is not None
        and daemon.unit is not None
        and main not in ("0", str(daemon.lock_holder))
    ):
        yield Finding(
            f"{daemon.name}-lock",
            "bad",
            f"process {daemon.lock_holder} holds the {daemon.name}'s lock, not the unit's process {main}",
            f"ps -fp {daemon.lock_holder}, and end it",
        )


def _folder(check: str, folder: Folder, name: str) -> Iterator[Finding]:
    path = folder.path
    if folder.unreadable:
        yield Finding(check, "warn", f"{path} cannot be looked at", "sudo escra doctor")
        return
    if not folder.exists:
        yield Finding(check, "ok", f"{path} is not there yet: the first start makes it")
        return
    trouble = []
    if folder.read_only:
        trouble.append(
            Finding(
                check,
                "bad",
                f"{path} is on a read-only file system: nothing can be remembered, and nothing grows",
                f"mount -o remount,rw $(findmnt -no TARGET -T {path})",
            )
        )
    elif folder.free_bytes < LITTLE_FREE:
        severe = folder.free_bytes < LEAST_FREE
        trouble.append(
            Finding(
                check,
                "bad" if severe else "warn",
                f"{format_bytes(folder.free_bytes)} free in {path}: what Escra remembers must fit there",
                f"df -h {path}; make room",
            )
        )
    if folder.mode & 0o022:
        trouble.append(
            Finding(
                check,
                "bad",
                f"{path} has mode {folder.mode:o}: others can change what Escra remembers",
                f"chmod 700 {path}",
            )
        )
    if folder.ahead_s > AHEAD_S:
        trouble.append(
            Finding(
                check,
                "warn",
                f"files in {path} are from the future: the clock was put back by {folder.ahead_s / 60:.0f} "
                "minutes or more",
                "timedatectl; restart the daemons when the clock is right",
            )
        )
    yield from trouble or [Finding(check, "ok", f"{path}, {format_bytes(folder.free_bytes)} free")]


def _tls(check: str, tls: Tls, wall: float) -> Iterator[Finding]:
    if tls.unseen:
        yield Finding(
            check, "warn", f"{tls.unseen}: the certificates could not be looked at", "sudo escra doctor"
        )
        return
    if tls.error:
        yield Finding(check, "bad", tls.error, 'see "TLS in five minutes" in the README')
        return
    if tls.key_mode & 0o077:
        yield Finding(
            check,
            "bad",
            f"{tls.key} has mode {tls.key_mode:o}: others can read the key, and pose as this daemon",
            f"chmod 600 {tls.key}; if somebody may have: escra-controller pki issue --force NAME",
        )
    ended = [expiry for expiry in tls.ends if not expiry.usable(wall)]
    problems = [(expiry in ended, problem) for expiry in tls.ends if (problem := expiry.problem(wall))]
    for over, problem in problems:
        yield Finding(check, "bad" if over else "warn", problem, "escra-controller pki issue --force NAME")
    if not problems and tls.ends:
        days = (min(expiry.not_after for expiry in tls.ends) - wall) / 86_400
        yield Finding(check, "ok", f"certificate and key fit; the first ends in {days:.0f} days")


def _follow(facts: Facts) -> Iterator[Finding]:
    agent = next((daemon for daemon in facts.daemons if daemon.name == "agent"), None)
    stale = sorted(unit for unit, exists in facts.follow.items() if not exists)
    if stale:
        yield Finding(
            "reload",
            "warn",
            f"files with limits are left beside units that are gone: {_some(stale)}",
            f"rm -r /run/systemd/system/{stale[0]}.d (and the others); systemctl daemon-reload",
        )
    if not facts.host.systemd or agent is None:
        return
    if facts.follow and not agent.running:
        yield Finding(
            "reload",
            "warn",
            f"no agent runs, and {len(facts.follow)} units still have its files: a daemon-reload brings the "
            "limits back that it last wrote",
            "escra-agent restore; systemctl daemon-reload",
        )
    elif agent.config is not None and not agent.config["systemd"]["follow"]:
        yield Finding(
            "reload",
            "warn",
            "[systemd] follow = false: at every daemon-reload (each package installation) limits are for a "
            "moment those that systemd knows",
            "take it out of agent.toml",
        )
    elif not stale:
        yield Finding("reload", "ok", f"{len(facts.follow)} units have a file with their limits beside them")


def _answers(facts: Facts) -> Iterator[Finding]:
    leads = any(not answer.error and not answer.standby for answer in facts.answers)
    for answer in facts.answers:
        if answer.error:
            yield Finding(
                "reach",
                "warn" if leads else "bad",
                f"controller {answer.address}: {answer.error}"
                + ("" if leads else "; containers keep the limits they have"),
                f"on that host: systemctl status escra-controller; ss -ltn; from here: nc -vz "
                f"{answer.address.rpartition(':')[0]} {answer.address.rpartition(':')[2]}",
            )
        else:
            part = "a standby" if answer.standby else "it leads"
            yield Finding(
                "reach", "ok", f"controller {answer.address}: {answer.software} on {answer.host}, {part}"
            )
    if facts.answers and not leads and not any(answer.error for answer in facts.answers):
        yield Finding(
            "reach",
            "bad",
            "every controller that agent.toml lists is a standby: nobody leads",
            "on the one that shall lead: escra-controller promote",
        )


def _socket(socket: Socket) -> Iterator[Finding]:
    if not socket.group:
        yield Finding(
            "group",
            "warn",
            "there is no group escra: only root can use the escra command",
            "cp systemd/escra.sysusers.conf /usr/lib/sysusers.d/escra.conf; systemd-sysusers",
        )
    if "permission denied" in socket.error:
        yield Finding("answers", "warn", socket.error, "sudo escra doctor")
        return
    if socket.error:
        yield Finding("answers", "bad", socket.error, "systemctl status escra-controller")
        return
    for problem in socket.problems or ():
        yield Finding("answers", "warn", f"the controller says: {problem}", "escra status")
    if not socket.problems:
        yield Finding("answers", "ok", f"the controller answers at {socket.path} and is well")


def _metrics(config: Any, error: str) -> Finding:
    address = config.get("listen", {}).get("metrics", "")
    if not address:
        return Finding("metrics", "ok", "switched off")
    if error:
        return Finding(
            "metrics",
            "warn",
            f"{address}: {error}",
            'give [listen] metrics another address, or "" for none; ss -ltnp shows who has it',
        )
    return Finding("metrics", "ok", f"http://{address}/metrics answers")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
