"""What the commands say of themselves: help, examples, manual pages."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from escra_agent.config import AgentConfig
from escra_agent.daemon import main as agent
from escra_controller.cli import main as escra
from escra_controller.config import ControllerConfig
from escra_controller.daemon import main as controller

ROOT = Path(__file__).parents[1]
PROGRAMS: dict[str, click.Command] = {"escra": escra, "escra-agent": agent, "escra-controller": controller}


def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None
            yield from walk(f"{path} {word}", below)


COMMANDS = dict(pair for name, program in PROGRAMS.items() for pair in walk(name, program))


def examples(command: click.Command) -> list[str]:
    block = (command.epilog or "").partition("Examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_says_what_it_is_for_and_shows_it(path: str) -> None:
    command = COMMANDS[path]
    first = (command.help or "").partition("\n")[0]
    assert first, "no help"
    assert len(first) <= 80, "the list of commands would cut it"
    assert examples(command), "no examples"
    assert any(line.startswith(path) for line in examples(command))
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


@pytest.mark.parametrize(
    "line", sorted({line for command in COMMANDS.values() for line in examples(command)})
)
def test_every_example_is_a_command_line(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.rec").touch()  # examples read it
    name, *words = shlex.split(line, comments=True)
    if name == "systemctl":
        verb, *units = words
        assert verb in ("start", "stop", "reload", "daemon-reload")
        assert {f"{unit}.service" for unit in units} <= {p.name for p in (ROOT / "systemd").iterdir()}
        return
    command, context = PROGRAMS[name], None
    while isinstance(command, click.Group):
        word, *words = words
        context = click.Context(command, info_name=word, parent=context)
        below = command.get_command(context, word)
        assert below is not None
        command = below
    command.make_context(name, words, parent=context)  # or a UsageError


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, str(ROOT / "systemd" / "manpages.py"), str(folder)], check=True, cwd=ROOT)
    return folder


def printed(page: Path) -> str:
    """As people read it, but for the line breaks; whatever groff warns of fails the test."""
    command = ["man", "--warnings", "-E", "UTF-8", "-l", str(page)]
    environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r"\s+", " ", done.stdout)


@pytest.mark.parametrize("page", ["man1/escra.1", "man8/escra-agent.8", "man8/escra-controller.8"])
def test_the_manual_page_of_a_program_is_whole(pages: Path, page: str) -> None:
    name = Path(page).stem
    text = printed(pages / page)
    for path, each in walk(name, PROGRAMS[name]):
        if path != name:
            assert f" {path.removeprefix(name + ' ')} [OPTIONS]" in text, path
        for line in examples(each):
            assert re.sub(r"\s+", " ", line) in text
        for option in each.params:
            assert not isinstance(option, click.Option) or option.opts[0] in text, option.name


@pytest.mark.parametrize("daemon", ["agent", "controller"])
def test_the_manual_page_of_a_configuration_has_its_keys_and_the_example(pages: Path, daemon: str) -> None:
    text = printed(pages / f"man5/escra-{daemon}.toml.5")
    example = (ROOT / "systemd" / f"{daemon}.example.toml").read_text()
    assert re.sub(r"\s+", " ", example).strip() in text
    settings: dict[str, type[msgspec.Struct]] = {"agent": AgentConfig, "controller": ControllerConfig}
    for field in msgspec.structs.fields(settings[daemon]):
        assert field.encode_name in text, field.encode_name


def test_each_page_can_be_found_by_what_it_is_about(pages: Path) -> None:
    for page in pages.glob("man*/*"):
        assert re.search(rf"(?m)^\.SH NAME\n{page.stem}".replace("-", r"\\?-") + r" \\- \w", page.read_text())
