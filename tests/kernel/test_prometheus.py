"""A real Prometheus reads a real pair; the dashboard's queries find something."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pair import Pair, free_port, running_pair
from escra_agent.hierarchy import Hierarchy
from tests.kernel_cgroups import throwaway
from tests.needs import unavailable
from tests.pki_files import Authority, section

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "systemd" / "grafana-dashboard.json").read_text())
WITHIN_S = 30.0
# The promised names; with the labels that people will ask by.
PROMISED = {
    "escra_app_cpu_limit_cores": {"app"},
    "escra_container_cpu_limit_cores": {"app", "container", "host"},
    "escra_container_cpu_used_cores": {"app", "container", "host"},
    "escra_container_cpu_throttled_ratio": {"app", "container", "host"},
    "escra_container_memory_limit_bytes": {"app", "container", "host"},
    "escra_container_memory_used_bytes": {"app", "container", "host"},
    "escra_limit_changes_total": {"app", "resource", "reason"},
    "escra_oom_averted_total": {"app"},
    "escra_oom_kills_total": {"app"},
    "escra_drift_repairs_total": {"host"},
    "escra_decision_seconds_bucket": {"le"},
    "escra_tick_late_total": {"daemon", "host"},
}


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query?"

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The vector's samples, none while it does not answer."""
        try:
            with urllib.request.urlopen(
                self._url + urllib.parse.urlencode({"query": query}), timeout=5
            ) as got:
                answer = json.load(got)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                return []
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        except OSError:
            return []
        assert answer["status"] == "success", answer
        assert answer["data"]["resultType"] == "vector"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def wait(self, query: str) -> list[dict[str, Any]]:
        end = time.monotonic() + WITHIN_S
        while not (found := self.ask(query)):
            assert time.monotonic() < end, f"nothing within {WITHIN_S:g} s: {query}"
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def pair(hierarchy: Hierarchy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """With TLS, and one busy cgroup that is throttled at first."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    controller, agent = authority.issue("controller", "ctl", "127.0.0.1"), authority.issue("agent", "host-1")
    with throwaway(hierarchy) as group:
        group.busy()
        with running_pair(
            f'grace_s = 0\n[apps.shop]\ncpu = 0.5\nmemory = "256MiB"\n{section(controller)}',
            f'host = "host-1"\n[docker]\nenabled = false\n[[cgroup]]\npath = "{group.path}"\napp = "shop"\n'
            f'name = "web"\n{section(agent)}',
            metrics=True,
        ) as made:
            made.wait_managed("web")
            yield made


@pytest.fixture(scope="module")
def prometheus(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    for program in ("prometheus", "promtool"):
        if not shutil.which(program):
            unavailable("kernel", f"{program} is not installed; install prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: escra\n  scrape_interval: 1s\n  static_configs:\n"
        f"  - targets: ['{pair.metrics}']\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def page(pair: Pair) -> str:
    with urllib.request.urlopen(f"http://{pair.metrics}/metrics", timeout=5) as got:
        text: str = got.read().decode()
    return text


def test_promtool_has_nothing_to_say(pair: Pair, prometheus: Prometheus) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page(pair), capture_output=True, text=True, timeout=20
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_prometheus_finds_what_was_promised(pair: Pair, prometheus: Prometheus) -> None:
    prometheus.wait('up{job="escra"} == 1')
    for name, labels in PROMISED.items():
        for sample in prometheus.wait(name):
            assert labels | {"__name__", "instance", "job"} == sample["metric"].keys(), name
    (limit,) = prometheus.wait('escra_app_cpu_limit_cores{app="shop"}')
    assert float(limit["value"][1]) == 0.5
    (used,) = prometheus.wait('escra_container_cpu_used_cores{container="web",host="host-1"} > 0.1')
    assert float(used["value"][1]) < 2
    assert prometheus.wait(
        "sum without (container, host) (escra_container_cpu_limit_cores) <= escra_app_cpu_limit_cores"
    )


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, meaning in (
                ("$__rate_interval", "10s"),
                ("$__range", "1m"),
                ("$app", ".*"),
                ("$host", ".*"),
            ):
                query = query.replace(variable, meaning)
            yield panel["title"], query


@pytest.mark.parametrize(("panel", "query"), list(queries()), ids=str)
def test_every_query_of_the_dashboard_finds_something(prometheus: Prometheus, panel: str, query: str) -> None:
    assert "$" not in query
    for sample in prometheus.wait(query):
        float(sample["value"][1])


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD["panels"])))
    assert {"app", "host", "datasource"} == used == known


def test_what_the_readme_lists_is_on_the_page(pair: Pair, prometheus: Prometheus) -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\bescra_[a-z_]+[a-z]\b(?!\.)", readme)) - {"escra_agent", "escra_controller"}
    on_page = set(re.findall(r"(?m)^# TYPE (\S+)", page(pair)))
    assert len(named) > 20
    assert named <= on_page
