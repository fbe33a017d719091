from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_agent import config as agent
from escra_common.configfile import parse, show
from escra_common.errors import ConfigError
from escra_controller import config as controller

EXAMPLES = Path(__file__).parents[2] / "systemd"


def load_controller(tmp_path: Path, text: str) -> controller.ControllerConfig:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return controller.load_config(path)


def load_agent(tmp_path: Path, text: str) -> agent.AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return agent.load_config(path)


def test_the_examples_can_be_used() -> None:
    (shop,) = controller.load_config(EXAMPLES / "controller.example.toml").specs()
    assert (shop.name, shop.cpu, shop.memory) == ("shop", 1000, 512 << 20)
    assert agent.load_config(EXAMPLES / "agent.example.toml").controller[0].port == 7737


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    config = load_controller(tmp_path, "")
    assert config.listen.agents == "127.0.0.1:7737"
    assert config.policy.name == "escra"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[listen]\nagent = 'x'", "unknown key 'listen.agent'; did you mean 'agents'"),
        ("[aps.shop]\ncpu = 1", "unknown key 'aps'; did you mean 'apps'"),
        ("[apps.shop]\ncpu = 1\nmemory = '1G'\ncpumin = 1", "'apps.shop.cpumin'; did you mean 'cpu_min'"),
        ("[apps.'a.b']\ncpu = 1\nmemory = 1\ncpumin = 1", "'apps.a.b.cpumin'; did you mean 'cpu_min'"),
        ("zzz = 1", "unknown key 'zzz'; valid here: apps, "),
        ("[apps.shop]\ncpu = 'lots'\nmemory = '1G'", r"apps\.shop\.cpu: 'lots' is not an amount of CPU"),
        ("[apps.shop]\ncpu = 1\nmemory = '1 elephant'", "'1 elephant' is not a size"),
        ("[apps.shop]\ncpu = 1", "missing required field `memory`"),
        ("[apps.'sh op']\ncpu = 1\nmemory = 1", "apps"),
        ("[listen]\nagents = 'localhost'", "write host:port"),
        ("[policy]\nname = 'escraa'", "policy.name"),
        ("[policy]\nupsilon = -1", "policy.upsilon"),
        ("[policy]\ngamma = nan", "policy.gamma"),
        ("[apps.a]\ncpu = 1\nmemory = 1\ncpu_min = 2", "cpu_min is above the application's cpu"),
        ("[apps.a]\ncpu = 4\nmemory = 1\ncpu_min = 2\ncpu_max = 1", "cpu_min is above cpu_max"),
        ("[listen]\nagents = '10.1.1.1:7737'", r"not loopback, and there is no \[tls\]"),
        ("[listen]\nmetrics = '0.0.0.0:9737'", r"not loopback: whoever .* listen\.metrics_plaintext = true"),
        ("[listen]\nmetrics = 'off'", "listen.metrics: 'off' is not an address; write host:port"),
        ("[[", "not TOML"),
    ],
)
def test_a_bad_controller_file_is_refused_with_key_and_reason(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        load_controller(tmp_path, text)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[cgroup]]\npath = 'a'\napp = 'x'\nnam = 'b'", "did you mean 'name'"),
        ("[[cgroup]]\npath = 'a'\napp = 'x'\n[[cgroup]]\npath = '/a/'\napp = 'y'", "the same path, a"),
        ("[[cgroup]]\npath = 'a/c'\napp = 'x'\n[[cgroup]]\npath = 'b/c'\napp = 'x'", "the same name, x/c"),
        (f"[[cgroup]]\npath = '{'x/' * 130}'\napp = 'x'", "length <= 240"),
        (f"[[cgroup]]\npath = 'a'\napp = 'x'\nname = '{'x' * 300}'", "length <= 255"),
        (f"host = '{'x' * 300}'", "host: .*length <= 255"),
        (f"interval = {'9' * 5000}", "not TOML"),
        ("[fallback]\non_stop = 'explode'", "fallback.on_stop"),
        ("interval = 0", "interval"),
        ("controller = '192.0.2.1:7737'", "not loopback"),
        ("[[cgroup]]\npath = 'a'\napp = 'x'\ncpu_min = 2\ncpu_max = 1", "cpu_min is above cpu_max"),
    ],
)
def test_a_bad_agent_file_is_refused_with_key_and_reason(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_agent(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere.toml: No such file"):
        controller.load_config(tmp_path / "nowhere.toml")


@given(st.text(max_size=80))
def test_whatever_the_file_says_the_answer_is_a_config_or_a_config_error(text: str) -> None:
    for kind in (controller.ControllerConfig, agent.AgentConfig):
        try:
            assert isinstance(parse(text, kind), kind)
        except ConfigError:
            continue


def test_a_configuration_is_shown_with_its_defaults(tmp_path: Path) -> None:
    shown = show(load_controller(tmp_path, "[apps.shop]\ncpu = '1500m'\nmemory = '1GiB'"))
    assert '"cpu": 1.5' in shown
    assert '"agents": "127.0.0.1:7737"' in shown
    assert show(load_agent(tmp_path, ""))
