"""An application as containers of a Docker Engine of its own, made from Debian's packages.

Its network leads nowhere but to this machine.  Escra finds the containers by their labels; the limits that
the other policies set are written into the same cgroups.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.compare.applications import APP, Call, Design
from benchmarks.compare.designs import REAL
from benchmarks.compare.httpwire import PORT, Front
from benchmarks.compare.software import FILLED, fill_script, nginx_conf, software_of
from escra_agent.hierarchy import Hierarchy
from tests.debian_image import DATABASES, USER, WEB, databases_tar, web_tar
from tests.docker_engine import DockerEngine, EngineTrouble
from tests.kernel_cgroups import FoundCgroup

CODE = Path(__file__).parents[1]
START_S = 60.0
ANSWER_S = 5.0
_NETWORK = "escra-compare"


class DockerApplication:
    def __init__(self, design: Design, hierarchy: Hierarchy, engine: DockerEngine, parent: str) -> None:
        self.design = design
        self.parent = FoundCgroup(hierarchy, parent)
        self.containers: Mapping[str, FoundCgroup] = {}
        self._engine = engine

    def start(self) -> None:
        """Raises EngineTrouble, and TimeoutError with what the services said."""
        conf = self._engine.root / "nginx.conf"
        conf.write_text(nginx_conf(self.design))
        with ThreadPoolExecutor(4) as threads:
            ids = list(threads.map(self._run, self.design.services))
        paths = [f"{self.parent.path}/{container_id}" for container_id in ids]
        groups = [FoundCgroup(self.parent.hierarchy, path) for path in paths]
        self.containers = dict(zip(self.design.services, groups, strict=True))
        end = time.monotonic() + START_S
        for operation, call in self.design.operations.items():
            while self.answer(call) is None:
                if time.monotonic() > end:
                    raise TimeoutError(f"no answer to {operation} after {START_S:g} s\n{self._said()}")
                time.sleep(0.1)

    def answer(self, call: Call) -> tuple[str, bytes] | None:
        """Content type and body of one request through nginx; None when there is none in time."""
        return asyncio.run(_answered(self.entry.removeprefix("http://"), call))

    @property
    def entry(self) -> str:
        address = self._engine.docker(
            "inspect",
            "--format",
            f'{{{{(index .NetworkSettings.Networks "{_NETWORK}").IPAddress}}}}',
            "nginx",
        )
        return f"http://{address}:{PORT}"

    @property
    def agent_toml(self) -> str:
        return f'[docker]\nsocket = "{self._engine.socket.removeprefix("unix://")}"\n'

    def _run(self, service: str) -> str:
        software = software_of(service, str(CODE), str(self._engine.root / "nginx.conf"))
        options = (f"--name={service}", f"--label=escra.app={APP}", f"--network={_NETWORK}")
        parent = f"--cgroup-parent={self.parent.path}"
        return self._engine.docker("run", *software.run_options(*options, parent))

    def _said(self) -> str:
        ends = (self._engine.docker("logs", "--tail=8", name) for name in self.design.services)
        return "\n".join(f"--- {name}\n{end}" for name, end in zip(self.design.services, ends, strict=True))


class DockerContainers:
    """As a place: each application has a cgroup of its own in the engine's."""

    name = "Docker containers"
    designs = REAL

    def __init__(self, hierarchy: Hierarchy, engine: DockerEngine) -> None:
        self.hierarchy = hierarchy
        self.engine = engine
        self._count = 0

    @contextmanager
    def running(self, design: Design) -> Iterator[DockerApplication]:
        self._count += 1
        parent = f"{self.engine.cgroup_parent}/{self._count}"
        try:
            application = DockerApplication(design, self.hierarchy, self.engine, parent)
            application.start()
            yield application
        finally:
            self.engine.remove_containers()


@contextmanager
def docker_place(hierarchy: Hierarchy, engine: DockerEngine) -> Iterator[DockerContainers]:
    """With images and a network in ``engine``, whose containers go.

    Raises CannotBuild where there are no packages, EngineTrouble.
    """
    with ThreadPoolExecutor(2) as threads:
        web = threads.submit(lambda: engine.docker("import", str(web_tar()), WEB))
        engine.docker("import", str(databases_tar()), DATABASES)
        _fill(engine)
        web.result()
    bridge = f"escra-{os.getpid()}"
    option = f"--opt=com.docker.network.bridge.name={bridge}"
    engine.docker("network", "create", "--internal", option, _NETWORK)
    try:
        yield DockerContainers(hierarchy, engine)
    finally:
        # Of an engine that is gone already only the bridge is left.
        with contextlib.suppress(EngineTrouble):
            engine.remove_containers()
            engine.docker("network", "rm", _NETWORK)
        if Path("/sys/class/net", bridge).exists():
            subprocess.run(["ip", "link", "delete", bridge], check=True)


def _fill(engine: DockerEngine) -> None:
    sql = CODE / "compare" / "inside" / "postgres.sql"
    options = ("--name=fill", f"--user={USER}", "--network=none", f"--volume={sql}:/fill.sql:ro")
    engine.docker("run", *options, DATABASES, "/bin/sh", "-c", fill_script("/fill.sql"))
    engine.docker("commit", "fill", FILLED)
    engine.docker("rm", "fill")


async def _answered(address: str, call: Call) -> tuple[str, bytes] | None:
    front = Front(address)
    try:
        return await front.ask(time.monotonic() + ANSWER_S, call.scaled(1.0))
    finally:
        await front.close()
