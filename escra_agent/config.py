"""/etc/escra/agent.toml as a type: the defaults live here."""

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from escra_agent.caps import Caps
from escra_agent.labels import Labels
from escra_common.configfile import Address, Addresses, load
from escra_common.errors import ConfigError
from escra_common.messages import Mode, Weight
from escra_common.tls import TlsConfig
from escra_common.units import Cpu, Size

DEFAULT_PATH = Path("/etc/escra/agent.toml")

# Everything here is said to the controller, which cuts off a host that says what is longer.
Text = Annotated[str, Meta(min_length=1, max_length=255)]
Title = Annotated[str, Meta(max_length=255)]
# The path is in the id, too, behind a word of ours.
CgroupPath = Annotated[str, Meta(min_length=1, max_length=240)]


class DockerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = True
    socket: str = "/run/docker.sock"


class MemoryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without ``enabled`` memory limits are shown and left alone."""

    enabled: bool = True


class SystemdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``follow``: a file beside each managed unit says its limits, so that a reload lands near them."""

    follow: bool = True


class CgroupConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cgroup that no Docker label speaks for; the path is below the cgroup mount."""

    path: CgroupPath
    app: Text
    name: Title = ""
    mode: Mode = "auto"
    weight: Weight = 100
    cpu_min: Cpu | None = None
    cpu_max: Cpu | None = None
    memory_min: Size | None = None
    memory_max: Size | None = None

    def labels(self) -> Labels:
        """The same wishes as Docker labels would say them."""
        amounts = (self.cpu_min, self.cpu_max, self.memory_min, self.memory_max)
        return Labels(self.app, self.mode, self.weight, *(None if a is None else int(a) for a in amounts))

    @property
    def title(self) -> str:
        return self.name or self.path.strip("/").rpartition("/")[2]


class FallbackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``on_stop``: what a clean stop does with limits that Escra wrote."""

    on_stop: Literal["hold", "restore"] = "hold"


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``interval`` in seconds.  ``plaintext`` allows a controller off loopback without TLS.

    Of several controllers listed, the agent follows the one that leads.  ``mode`` observe: nothing is
    written to any container of this host.  ``alarms``: whose quota will not do is told within the period;
    ``lending``: and gets what others of its application will not use of theirs.
    ``realtime``: the agent is scheduled before all that is not realtime itself.
    """

    controller: Addresses = Addresses([Address("127.0.0.1:7737")])
    host: Title = ""
    interval: Annotated[float, Meta(ge=0.01, le=10)] = 0.1
    mode: Literal["auto", "observe"] = "auto"
    alarms: bool = True
    lending: bool = True
    realtime: bool = True
    state_dir: str = ""
    plaintext: bool = False
    tls: TlsConfig | None = None
    docker: DockerConfig = DockerConfig()
    memory: MemoryConfig = MemoryConfig()
    systemd: SystemdConfig = SystemdConfig()
    caps: Caps = Caps()
    cgroup: list[CgroupConfig] = []
    fallback: FallbackConfig = FallbackConfig()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def host_name(self) -> str:
        return self.host or socket.gethostname()

    @property
    def state_path(self) -> Path:
        """systemd names the directory; by hand it is the same one."""
        return Path(self.state_dir or os.environ.get("STATE_DIRECTORY", "/var/lib/escra-agent"))

    @property
    def originals_path(self) -> Path:
        return self.state_path / "originals.json"

    @property
    def parts_path(self) -> Path:
        return self.state_path / "parts"

    @property
    def lock_path(self) -> Path:
        """Held by the agent that runs: one per host."""
        return self.state_path / "lock"


def load_config(path: Path) -> AgentConfig:
    """Raises ConfigError for everything that cannot work, before anything is touched."""
    config = load(path, AgentConfig)
    seen: set[str] = set()
    for entry in config.cgroup:
        for what, value in (("path", entry.path.strip("/")), ("name", f"{entry.app}/{entry.title}")):
            if f"{what} {value}" in seen:
                raise ConfigError(f"{path}: two [[cgroup]] entries with the same {what}, {value}")
            seen.add(f"{what} {value}")
        if entry.cpu_min is not None and entry.cpu_max is not None and entry.cpu_min > entry.cpu_max:
            raise ConfigError(f"{path}: [[cgroup]] {entry.path}: cpu_min is above cpu_max")
    if problem := config.caps.problem():
        raise ConfigError(f"{path}: [caps] {problem}")
    if config.tls is None and not config.controller.is_loopback and not config.plaintext:
        raise ConfigError(
            f"{path}: controller is {config.controller}, not loopback, and there is no [tls]: whoever sits "
            "between could change limits.  Add [tls], or say plaintext = true if the network is yours alone"
        )
    return config
