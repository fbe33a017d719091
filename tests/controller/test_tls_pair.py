"""Both daemons under TLS: who talks to whom, renewal, ends, and the README's five minutes."""

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pair import Pair, running_pair
from escra_common.tls import TlsConfig
from tests.pki_files import Authority, replace, section

CONTROLLER = 'grace_s = 0\n[apps.bench]\ncpu = 1\nmemory = "1GiB"\n'
ROOT = Path(__file__).parents[2]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with running_pair("", "", start=False) as made:
        yield made


def configure(pair: Pair, controller: TlsConfig, agent: TlsConfig) -> None:
    pair.write_config("controller", CONTROLLER + section(controller))
    pair.write_config("agent", 'host = "host-1"\n[docker]\nenabled = false\n' + section(agent))


def states(pair: Pair) -> dict[str, str]:
    return {row["host"]: row["state"] for row in pair.ask("agents")}


def wait_joined(pair: Pair) -> None:
    pair.wait_until(lambda: states(pair) == {"host-1": "connected"}, "the agent is connected")


def log(pair: Pair, name: str) -> list[dict[str, str]]:
    lines = (pair.folder / f"{name}.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def wait_logged(pair: Pair, name: str, *texts: str) -> None:
    def logged() -> bool:
        return any(all(text in json.dumps(entry) for text in texts) for entry in log(pair, name))

    pair.wait_until(logged, f"{name} says {texts}", 8)


def serial_shown(pair: Pair, ca: str) -> str:
    """The serial number of the certificate that the controller shows to a new connection."""
    client = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", pair.port), timeout=5) as raw,
        client.wrap_socket(raw, server_hostname="127.0.0.1") as peer,
    ):
        certificate = peer.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_the_agent_refuses_a_controller_of_another_name(authority: Authority, pair: Pair) -> None:
    controller = authority.issue("controller", "ctl", "127.0.0.2")
    configure(pair, controller, authority.issue("agent", "host-1"))
    pair.start()
    wait_logged(pair, "agent", "no controller", "certificate is not valid for '127.0.0.1'")
    assert states(pair) == {}
    replace(controller, authority.issue("controller", "ctl2", "127.0.0.1"))
    pair.processes["controller"].send_signal(signal.SIGHUP)
    wait_joined(pair)


def test_the_agent_is_told_when_its_certificate_may_be_refused(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    controller = authority.issue("controller", "ctl", "127.0.0.1")
    stranger = Authority(tmp_path / "other").issue("agent", "host-1")
    with Path(stranger.ca).open("a") as both:
        both.write(Path(controller.ca).read_text())
    configure(pair, controller, stranger)
    pair.start()
    wait_logged(pair, "agent", "no controller", "does it refuse our certificate")
    wait_logged(pair, "controller", "connection refused", "certificate not accepted", '"127.0.0.1"')
    assert states(pair) == {}


@pytest.mark.parametrize("name", ["controller", "agent"])
def test_a_certificate_of_the_other_role_ends_the_daemon(authority: Authority, pair: Pair, name: str) -> None:
    configure(pair, authority.issue("agent", "host-1"), authority.issue("controller", "ctl"))
    pair.start(name)
    assert pair.processes[name].wait(10) == 78
    assert f"does not work as a{'n' * (name == 'agent')} {name}'s certificate" in pair.logs()


def test_both_ends_are_renewed_while_connected(authority: Authority, pair: Pair) -> None:
    controller, agent = authority.issue("controller", "ctl", "127.0.0.1"), authority.issue("agent", "host-1")
    configure(pair, controller, agent)
    pair.start()
    wait_joined(pair)
    before = serial_shown(pair, controller.ca)
    authority.issue("controller", "ctl", "127.0.0.1")
    authority.issue("agent", "host-1")
    for name in ("controller", "agent"):
        pair.processes[name].send_signal(signal.SIGHUP)
        wait_logged(pair, name, "certificate renewed")
    assert serial_shown(pair, controller.ca) != before
    assert states(pair) == {"host-1": "connected"}
    assert sum(entry["event"] == "agent joined" for entry in log(pair, "controller")) == 1, "it stayed"
    pair.stop("agent")
    pair.start("agent")
    wait_joined(pair)


def test_a_renewal_that_does_not_work_is_told_and_changes_nothing(authority: Authority, pair: Pair) -> None:
    controller = authority.issue("controller", "ctl", "127.0.0.1")
    configure(pair, controller, authority.issue("agent", "host-1"))
    pair.start()
    wait_joined(pair)
    before = serial_shown(pair, controller.ca)
    shutil.copy(authority.issue("controller", "other").key, controller.key)
    for _ in range(2):
        pair.processes["controller"].send_signal(signal.SIGHUP)
        wait_logged(pair, "controller", "renewed certificate refused", "values mismatch")
    status = pair.ask("status")
    assert status["state"] == "degraded"
    assert "renewed certificate refused: [tls] cert and key" in status["problems"][0]
    assert serial_shown(pair, controller.ca) == before
    pair.stop("agent")
    pair.start("agent")
    wait_joined(pair)
    refusals = [e for e in log(pair, "controller") if e["event"].startswith("renewed certificate refused")]
    assert len(refusals) == 1


def test_what_ends_soon_is_in_the_status_and_in_both_logs(authority: Authority, pair: Pair) -> None:
    controller = authority.issue("controller", "ctl", "127.0.0.1", days=305, ago_days=300)
    configure(pair, controller, authority.issue("agent", "host-1", days=310, ago_days=300))
    pair.start()
    wait_joined(pair)
    problems = pair.ask("status")["problems"]
    assert len(problems) == 2
    assert re.match(r"this controller's certificate \(.*\) ends in 4 days, on 20", problems[0])
    assert problems[1].startswith("the certificate of agent host-1 ends in 9 days")
    wait_logged(pair, "controller", "this controller's certificate", "ends in 4 days")
    wait_logged(pair, "agent", "this agent's certificate", "ends in 9 days")


def test_a_controller_whose_certificate_ended_waits_for_a_new_one(authority: Authority, pair: Pair) -> None:
    controller = authority.issue("controller", "ctl", "127.0.0.1", days=10, ago_days=30)
    configure(pair, controller, authority.issue("agent", "host-1"))
    pair.start()
    wait_logged(pair, "agent", "no controller", "certificate has expired")
    assert "ended on" in pair.ask("status")["problems"][0]
    authority.issue("controller", "ctl", "127.0.0.1")
    pair.processes["controller"].send_signal(signal.SIGHUP)
    wait_joined(pair)
    assert pair.ask("status")["state"] == "ok"


def test_the_readmes_five_minutes(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block as it stands there, but for the folders, the address and the port of this test."""
    readme = (ROOT / "README.md").read_text()
    part = readme[readme.index("## TLS in five minutes") :].partition("\n- **")[0]
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", part, re.MULTILINE)
    blocks = [re.sub(r"(?m)^ {4}", "", block).strip() for block in blocks if block.strip()]
    make, copy, credentials, controller, agent = blocks

    etc = tmp_path / "etc"
    etc.mkdir()

    def here(text: str) -> str:
        pki = f"{sys.executable} -m escra_controller.daemon pki"
        for there, place in (
            ("escra-controller pki init", f"{pki} init --dir {etc}/pki"),
            ("escra-controller pki issue", f"{pki} issue --dir {etc}/pki"),
            ("/etc/escra", str(etc)),
            ("192.0.2.10", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("7737", str(pair.port)),
        ):
            text = text.replace(there, place)
        return text

    subprocess.run(["sh", "-euc", here(make)], check=True, capture_output=True, cwd=ROOT)
    subprocess.run(["sh", "-euc", here(copy)], check=True, capture_output=True)
    assert {path.name for path in etc.glob("*.key")} == {"controller.key", "agent.key"}
    assert {path.stat().st_mode & 0o777 for path in etc.glob("*.key")} == {0o600}

    handed = tmp_path / "credentials"  # what systemd does with LoadCredential=
    handed.mkdir()
    for name, source in re.findall(r"^LoadCredential=(.*):(.*)$", here(credentials), re.MULTILINE):
        shutil.copy(source, handed / name)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))

    control = f'[listen]\ncontrol = "{pair.control}"\nmetrics = ""'
    (pair.folder / "controller.toml").write_text(here(controller).replace("[listen]", control))
    own = f'state_dir = "{pair.folder}/state"\n'
    (pair.folder / "agent.toml").write_text(own + here(agent) + "\n[docker]\nenabled = false\n")
    pair.start()
    wait_joined(pair)
    assert pair.ask("status")["problems"] == []
