"""What the README tells people to type exists."""

import re
import tomllib
from pathlib import Path

import click

from escra_agent.daemon import main as agent
from escra_controller.cli import main as escra
from escra_controller.daemon import main as controller
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_make_targets_exist() -> None:
    rules = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = set(re.findall(r"\bmake ([a-z][\w-]*)", README))
    assert {"demo", "test", "test-host"} <= named
    assert named <= targets


def test_commands_exist() -> None:
    for name, group in (("escra", escra), ("escra-controller", controller), ("escra-agent", agent)):
        assert isinstance(group, click.Group)
        for command in re.findall(rf"(?m)(?:`|^    ){name} ([a-z][\w-]+)", README):
            assert command in group.list_commands(click.Context(group)), f"{name} {command}"


def test_files_exist() -> None:
    named = re.findall(r"(?<![\w/])(systemd/[\w./-]*\w)", README)
    assert "systemd/install.sh" in named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_example_is_in_the_table() -> None:
    folders = {f"systemd/examples/{path.name}" for path in (ROOT / "systemd" / "examples").iterdir()}
    assert folders == set(re.findall(r"(?m)^\| `(systemd/examples/[\w-]+)` \|", README))


def test_every_runtime_dependency_says_what_it_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", dependency)[0] for dependency in project["dependencies"]}
    table = README[README.index("## Dependencies") : README.index("## Development")]
    assert needed == set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) - {"Package"}


def test_the_defaults_it_names_are_the_defaults() -> None:
    for name in ("gamma", "kappa", "headroom", "shrink_window_s", "remember_s", "idle_s", "credit"):
        (value,) = re.findall(rf"`{name}` \(([\d.]+)", README)
        assert float(value) == getattr(Settings(), name), name
    for name in ("horizon_s", "margin", "ask_s", "reclaim_s"):
        (value,) = re.findall(rf"`{name}` \(([\d.]+)", README)
        assert float(value) == getattr(MemorySettings(), name), name
