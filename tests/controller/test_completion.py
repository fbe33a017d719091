"""The TAB key: names from the running controller, through the shells' own protocol."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escra_controller.client import query
from tests.controller.test_cli import World, serving

ESCRA = str(Path(sys.executable).with_name("escra"))


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("run") / "controller.sock"
    with serving(path, World().answer):
        yield path


def escra(control: Path, **environment: str) -> str:
    command_line = {"PATH": os.environ["PATH"], "ESCRA_SOCKET": str(control), **environment}
    done = subprocess.run([ESCRA], env=command_line, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return done.stdout


def completed(control: Path, words: str) -> list[str]:
    """What zsh and fish are told, too, each in its own lines; bash's are the plainest."""
    count = str(len(words.split(" ")) - 1)
    said = escra(control, COMP_WORDS=words, COMP_CWORD=count, _ESCRA_COMPLETE="bash_complete")
    return [line.partition(",")[2] for line in said.split()]


def test_names_of_containers_apps_and_hosts(control: Path) -> None:
    containers = sorted(row["name"] for row in query(control, {"op": "ps"}))
    (app,) = (row["name"] for row in query(control, {"op": "apps"}))
    (host,) = (row["host"] for row in query(control, {"op": "agents"}))
    assert len(containers) == 3
    assert completed(control, "escra explain ") == containers
    assert completed(control, f"escra explain {containers[0][:2]}") == containers[:1]
    for words in ("escra ps ", "escra events ", "escra set "):
        assert completed(control, words) == [app]
    assert completed(control, "escra forget ") == [host]


def test_the_socket_that_was_named_is_asked(control: Path, tmp_path: Path) -> None:
    assert completed(tmp_path / "none.sock", f"escra forget --socket {control} ") != []


def test_commands_and_options(control: Path) -> None:
    assert completed(control, "escra ex") == ["explain"]
    assert "--follow" in completed(control, "escra events --f")


def test_nobody_there_nothing_said(tmp_path: Path) -> None:
    assert completed(tmp_path / "none.sock", "escra explain ") == []


def test_a_controller_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    assert completed(tmp_path / "none.sock", "escra explain ") == []
    alone_s = time.monotonic() - began
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        began = time.monotonic()
        assert completed(tmp_path / "silent.sock", "escra explain ") == []
        assert time.monotonic() - began < 3 * alone_s + 1.0, "a query would wait two seconds"


def test_bash_completes(control: Path) -> None:
    """The script that is installed, in the shell itself."""
    script = escra(control, _ESCRA_COMPLETE="bash_source")
    script += 'COMP_WORDS=(escra explain ""); COMP_CWORD=2; _escra_completion escra; echo "${COMPREPLY[@]}"'
    environment = {"PATH": f"{Path(ESCRA).parent}:/usr/bin:/bin", "ESCRA_SOCKET": str(control)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (
        sorted(row["name"] for row in query(control, {"op": "ps"})),
        "",
    )
