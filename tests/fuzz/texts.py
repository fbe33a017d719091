"""What people type: labels, amounts, configuration files."""

import contextlib
from pathlib import Path

from escra_agent.config import AgentConfig
from escra_agent.config import load_config as load_agent
from escra_agent.labels import LabelError, Labels, parse_labels
from escra_agent.sources import cgroup_id
from escra_common.configfile import show
from escra_common.errors import ConfigError
from escra_common.messages import Appeared, Container, CpuLimit
from escra_common.session import hello
from escra_common.units import MAX_BYTES, MAX_MILLICORES, parse_bytes, parse_cpu
from escra_controller.config import load_config as load_controller
from tests.fuzz.expect import readable, sendable
from tests.fuzz.limits import Run

_NO_LIMIT = CpuLimit(None, 100_000)


def labels(_: Path) -> Run:
    """One label=value per line; the values also as amounts by themselves."""

    def run(data: bytes) -> None:
        # JSON can say half of a surrogate pair, which is text that can be passed on nowhere.
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        found = {key: value for key, _, value in (line.partition("=") for line in lines)}
        try:
            _check_labels(parse_labels(found), "/a", "a", "a")
        except LabelError as error:
            readable(error)
        for value in found.values():
            _check_amounts(value)

    return run


def _check_amounts(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_cpu(text) <= MAX_MILLICORES
    with contextlib.suppress(ValueError):
        assert 0 <= parse_bytes(text) <= MAX_BYTES


def _check_labels(wishes: Labels, path: str, container_id: str, name: str) -> None:
    """A container that wants this can be told of."""
    told = Container(
        1,
        container_id,
        name,
        wishes.app,
        path,
        wishes.mode,
        _NO_LIMIT,
        _NO_LIMIT,
        weight=wishes.weight,
        cpu_min_milli=wishes.cpu_min_milli,
        cpu_max_milli=wishes.cpu_max_milli,
        memory_min_bytes=wishes.memory_min_bytes,
        memory_max_bytes=wishes.memory_max_bytes,
    )
    sendable(Appeared(told))


def config(folder: Path) -> Run:
    """The first byte says whose file it is."""
    path = folder / "escra.toml"

    def run(data: bytes) -> None:
        path.write_bytes(data[1:])
        try:
            if data[:1] == b"a":
                _check_agent(load_agent(path))
            else:
                loaded = load_controller(path)
                assert len(loaded.specs()) == len(loaded.apps)
                show(loaded).encode()
        except ConfigError as error:
            readable(error)

    return run


def _check_agent(loaded: AgentConfig) -> None:
    show(loaded).encode()
    sendable(hello("agent", loaded.host_name))
    for entry in loaded.cgroup:
        if entry.title:  # else it is the root, which cannot be opened
            _check_labels(entry.labels(), entry.path, cgroup_id(entry.path), entry.title)
