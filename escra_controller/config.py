"""/etc/escra/controller.toml as a type: the defaults live here."""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from escra_common.configfile import Address, AddressOrOff, load
from escra_common.errors import ConfigError
from escra_common.messages import Fallback
from escra_common.tls import TlsConfig
from escra_common.units import Cpu, Size
from escra_controller.events import AppMode, AppSpec
from escra_controller.memory import MemorySettings
from escra_controller.policy import Settings

DEFAULT_PATH = Path("/etc/escra/controller.toml")

AppName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Weight = Annotated[int, Meta(ge=1, le=10_000)]


class ListenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``plaintext`` allows agents without TLS on an address that is not loopback, ``metrics_plaintext``
    readers of metrics, which never have TLS: say it, or be refused.
    """

    agents: Address = Address("127.0.0.1:7737")
    control: str = "/run/escra/controller.sock"
    group: str = "escra"
    plaintext: bool = False
    metrics: AddressOrOff = AddressOrOff("127.0.0.1:9737")
    metrics_plaintext: bool = False


class AppConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The minima and maxima are the defaults of containers without such labels."""

    cpu: Cpu
    memory: Size
    cpu_min: Cpu = Cpu(50)
    cpu_max: Cpu | None = None
    memory_min: Size = Size(16 << 20)
    memory_max: Size | None = None
    weight: Weight = 100
    # What agents do with its containers after ``lease_s`` without a controller.
    fallback: Fallback = "hold"
    lease_s: Annotated[int, Meta(ge=10, le=10**7)] = 300
    # "observe": decide and record, write nothing.
    mode: AppMode = "auto"


class ControllerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``standby`` takes no agents until ``escra-controller promote``."""

    standby: bool = False
    state_dir: str = ""
    listen: ListenConfig = ListenConfig()
    tls: TlsConfig | None = None
    policy: Settings = Settings()
    memory: MemorySettings = MemorySettings()
    apps: dict[AppName, AppConfig] = {}
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # How long after a first start nothing grows, so that agents can report what they still hold.
    grace_s: Annotated[float, Meta(ge=0, le=600)] = 2.0

    @property
    def state_path(self) -> Path:
        """systemd names the directory; by hand it is the same one."""
        return Path(self.state_dir or os.environ.get("STATE_DIRECTORY", "/var/lib/escra-controller"))

    def specs(self) -> list[AppSpec]:
        return [
            AppSpec(
                name,
                int(app.cpu),
                int(app.memory),
                int(app.cpu_min),
                None if app.cpu_max is None else int(app.cpu_max),
                int(app.memory_min),
                None if app.memory_max is None else int(app.memory_max),
                app.weight,
                app.fallback,
                app.lease_s,
                app.mode,
            )
            for name, app in self.apps.items()
        ]


def load_config(path: Path) -> ControllerConfig:
    """Raises ConfigError for everything that cannot work, before anything is touched."""
    config = load(path, ControllerConfig)
    for name, app in config.apps.items():
        if app.cpu_max is not None and app.cpu_min > app.cpu_max:
            raise ConfigError(f"{path}: apps.{name}: cpu_min is above cpu_max")
        if app.cpu_min > app.cpu:
            raise ConfigError(f"{path}: apps.{name}: cpu_min is above the application's cpu")
        if app.memory_max is not None and app.memory_min > app.memory_max:
            raise ConfigError(f"{path}: apps.{name}: memory_min is above memory_max")
        if app.memory_min > app.memory:
            raise ConfigError(f"{path}: apps.{name}: memory_min is above the application's memory")
    if config.tls is None and not config.listen.agents.is_loopback and not config.listen.plaintext:
        raise ConfigError(
            f"{path}: listen.agents is {config.listen.agents}, not loopback, and there is no [tls]: "
            "whoever reaches it could change limits.  Add [tls], or say listen.plaintext = true if the "
            "network is yours alone"
        )
    metrics = config.listen.metrics
    if metrics and not metrics.is_loopback and not config.listen.metrics_plaintext:
        raise ConfigError(
            f"{path}: listen.metrics is {metrics}, not loopback: whoever reaches it could read the names and "
            "the use of all containers, without TLS or a password.  Say listen.metrics_plaintext = true if "
            "the network is yours alone, or put a proxy with TLS in front of a loopback address"
        )
    return config
