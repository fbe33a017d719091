"""``escra top`` without a full screen: in a pipe, as JSON, and where a package is missing."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.top.conftest import Scene

ESCRA = [sys.executable, "-m", "escra_controller.cli"]


def top(scene: Scene, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*ESCRA, "top", "--socket", str(scene.pair.control), "-d", "0.2", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_frames_as_lines(scene: Scene) -> None:
    done = top(scene, "-n", "2", "--sort", "memory", "--filter", "shop")
    assert (done.returncode, done.stderr) == (0, "")
    frames = done.stdout.split("\n\n")
    assert len(frames) == 3  # nothing after the last
    for frame in frames[:2]:
        about, titles, *rows = frame.splitlines()
        assert "2 applications, 4 containers, 2 hosts" in about
        assert titles.startswith("NAME")
        assert [row.split()[0] for row in rows] == ["checkout", "web-2", "red?[31m"]
    assert "\x1b" not in done.stdout


def test_a_pipe_gets_lines_until_it_is_closed(scene: Scene) -> None:
    command = [*ESCRA, "top", "--socket", str(scene.pair.control), "-d", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = [process.stdout.readline() for _ in range(14)]  # two frames
        process.stdout.close()
        process.wait(20)
        assert sum("4 containers" in line for line in seen) >= 2
        assert "Traceback" not in process.stderr.read()


def test_one_json_object_per_frame(scene: Scene) -> None:
    done = top(scene, "--json", "-n", "3")
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(frames) == 3
    for frame in frames:
        assert {"at", "status", "apps", "containers", "agents"} <= frame.keys()
        assert len(frame["containers"]) == 4
    assert frames[0]["at"] < frames[1]["at"] < frames[2]["at"]
    assert scene.pair.ask("ps")[0].keys() == frames[0]["containers"][0].keys()


def test_no_controller_is_status_3(tmp_path: Path) -> None:
    command = [*ESCRA, "top", "--plain", "--socket", str(tmp_path / "none.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (3, "")
    assert "systemctl start escra-controller" in done.stderr


def test_without_its_package_lines_and_what_to_install(scene: Scene) -> None:
    hide = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *a: None if name == 'textual' else find(name, *a);"
        "from escra_controller.cli import main; main()"
    )
    command = [sys.executable, "-c", hide, "top", "--socket", str(scene.pair.control), "-d", "0.2"]
    environment = os.environ | {"TERM": "xterm"}
    master, slave = pty.openpty()
    with subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stderr is not None
            assert "pip install 'escra[top]'" in process.stderr.readline()
            seen = b""
            while b"4 containers" not in seen:
                seen += os.read(master, 1 << 12)
        finally:
            process.kill()
            os.close(slave)
            os.close(master)
