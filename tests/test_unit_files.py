"""The unit files, judged by systemd's own tools."""

import configparser
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from escra_controller.config import ListenConfig

SYSTEMD = Path(__file__).parents[1] / "systemd"
# systemd-analyze's tenths: 15 is an exposure of 1.5.
THRESHOLD = {"escra-controller.service": 15, "escra-agent.service": 25}


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing; install systemd")
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_each_unit_has_a_threshold() -> None:
    assert {path.name for path in SYSTEMD.glob("*.service")} == set(THRESHOLD)


def test_the_units_verify(tmp_path: Path) -> None:
    for name in THRESHOLD:
        text = (SYSTEMD / name).read_text()
        # verify wants a program that exists; whether ours does is for the target host to prove.
        assert "ExecStart=/opt/escra/bin/python " in text
        text = text.replace("=/opt/escra/bin/python ", "=/bin/true ")
        (tmp_path / name).write_text(text)
    done = analyze("verify", "--man=no", *(str(tmp_path / name) for name in THRESHOLD))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", THRESHOLD)
def test_the_sandbox_scores(name: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={THRESHOLD[name]}", str(SYSTEMD / name))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def directives(name: str) -> list[str]:
    lines = (SYSTEMD / name).read_text().splitlines()
    return [line.partition("=")[0] for line in lines if "=" in line and not line.startswith(("#", "["))]


@pytest.mark.parametrize("name", THRESHOLD)
def test_the_header_explains_each_directive(name: str) -> None:
    header = (SYSTEMD / name).read_text().partition("[Unit]")[0]
    if name == "escra-agent.service":
        # It refers to the controller's for what the two have in common.
        header += (SYSTEMD / "escra-controller.service").read_text().partition("[Unit]")[0]
    plain = {
        "Description",
        "Documentation",
        "Wants",
        "After",
        "WantedBy",
        "StateDirectoryMode",
        "RuntimeDirectoryMode",
    }
    assert [word for word in directives(name) if word not in plain and f"{word}=" not in header] == []


def test_the_units_and_the_users_agree() -> None:
    made = (SYSTEMD / "escra.sysusers.conf").read_text()
    agent, controller = (configparser.ConfigParser(strict=False, interpolation=None) for _ in range(2))
    agent.read(SYSTEMD / "escra-agent.service")
    controller.read(SYSTEMD / "escra-controller.service")
    assert re.search(rf"(?m)^u {agent['Service']['User']} ", made)
    assert re.search(rf"(?m)^g {controller['Service']['Group']} ", made)


def test_the_controllers_sandbox_lets_its_ports_be() -> None:
    text = (SYSTEMD / "escra-controller.service").read_text().partition("[Unit]")[2]
    assert re.search(r"(?m)^RestrictAddressFamilies=.*AF_INET .*AF_INET6", text)
    for closed in ("PrivateNetwork=yes", "SocketBind", "IPAddress"):
        assert closed not in text, closed
    assert ListenConfig().metrics.is_loopback
    assert ListenConfig().metrics.port > 1023, "without CAP_NET_BIND_SERVICE"


@pytest.mark.parametrize("name", ["controller.example.toml", "agent.example.toml"])
def test_the_examples_parse(name: str) -> None:
    assert tomllib.loads((SYSTEMD / name).read_text())
