"""Other writers of limits: repaired within a tick, and a reload lands near what is in force."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.host.conftest import IMAGE
from tests.host.target import Host

pytestmark = pytest.mark.host

ESCRA = "/opt/escra/bin/escra"
FILES = "/run/systemd/system"
MIB = 1 << 20
# A floor and a ceiling that are the same: Escra holds these, whatever the load.
CPU, CPU_MAX = "0.3", "30000 100000"
MEMORY_MAX = 96 * MIB
SERVICE = "escra-test-load.service"
# A tick is 100 ms; systemd itself keeps the guest's only processor busy meanwhile.
REPAIRED_S = 0.35

# Runs a command and watches two files: for how long at a stretch they were not as wanted, and what they were.
_WATCH = """
import json, subprocess, time
wanted = {wanted!r}
running = subprocess.Popen({command!r}, shell=True, stdout=subprocess.DEVNULL)
ended, since, worst, found = None, None, 0.0, set()
while ended is None or time.monotonic() < ended + 0.5:
    now, texts = time.monotonic(), {{name: open(name).read().strip() for name in wanted}}
    if ended is None and running.poll() is not None:
        ended = now
    if texts == wanted:
        since = None
    else:
        since = since or now
        worst = max(worst, now - since)
        found |= {{(name.rpartition("/")[2], text) for name, text in texts.items() if text != wanted[name]}}
    time.sleep(0.01)
print(json.dumps([running.returncode, worst, sorted(found)]))
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Something under limits that do not move."""

    host: Host
    unit: str

    @property
    def folder(self) -> str:
        return f"/sys/fs/cgroup/system.slice/{self.unit}"

    @property
    def file(self) -> str:
        return f"{FILES}/{self.unit}.d/90-escra.conf"

    def disturb(self, command: str) -> tuple[float, dict[str, str]]:
        """For how long its limits were others, and which; they are back at the end."""
        wanted = {f"{self.folder}/cpu.max": CPU_MAX, f"{self.folder}/memory.max": str(MEMORY_MAX)}
        watch = _WATCH.format(wanted=wanted, command=command)
        status, worst, found = json.loads(self.host.output(f"python3 - <<'END'\n{watch}\nEND"))
        assert status == 0
        return worst, dict(found)

    def repairs(self) -> int:
        (agent,) = self.host.json(f"{ESCRA} agents --json")
        repairs: int = agent["drift_repairs"]
        return repairs


@pytest.fixture(scope="module")
def container(host: Host) -> Iterator[Held]:
    try:
        unit = host.output(
            f"""
            docker run -d --name held --label escra-test --label escra.app=shop --cpus 0.2 --memory 64m \\
                --label escra.cpu.min={CPU} --label escra.cpu.max={CPU} \\
                --label escra.memory.min={MEMORY_MAX} --label escra.memory.max={MEMORY_MAX} \\
                --stop-timeout 0 {IMAGE} /bin/busybox sh -c 'while :; do sleep 1; done' >/dev/null
            docker inspect -f 'docker-{{{{.Id}}}}.scope' held
            """
        )
        held = Held(host, unit)
        in_force(held)
        yield held
    finally:
        host.run("docker rm -f held", check=False)


@pytest.fixture(scope="module")
def service(host: Host) -> Iterator[Held]:
    agent = host.output("cat /etc/escra/agent.toml")
    bounds = f"cpu_min = {CPU}\ncpu_max = {CPU}\nmemory_min = {MEMORY_MAX}\nmemory_max = {MEMORY_MAX}\n"
    try:
        host.write("/etc/escra/agent.toml", agent.replace('name = "batch"\n', f'name = "batch"\n{bounds}'))
        host.write(
            f"/etc/systemd/system/{SERVICE}", "[Service]\nExecStart=sleep 1000\nCPUQuota=20%\nMemoryMax=64M"
        )
        host.run(f"systemctl daemon-reload; systemctl reload escra-agent; systemctl start {SERVICE}")
        held = Held(host, SERVICE)
        in_force(held)
        yield held
    finally:
        host.run(f"systemctl stop {SERVICE}; rm -f /etc/systemd/system/{SERVICE}", check=False)
        # What set-property has left.
        host.run(f"rm -rf /run/systemd/system.control/{SERVICE}.d")
        host.write("/etc/escra/agent.toml", agent)
        host.run("systemctl daemon-reload; systemctl reload escra-agent", check=False)


def in_force(held: Held) -> None:
    cpu = f'test "$(cat {held.folder}/cpu.max)" = "{CPU_MAX}"'
    memory = f"test $(cat {held.folder}/memory.max) = {MEMORY_MAX}"
    # The file follows: CPU at most every three seconds.
    said = f"grep -q MemoryMax {held.file} && grep -q CPUQuota={float(CPU) * 100:.2f}% {held.file}"
    held.host.wait_until(f"{cpu} && {memory} && {said}", 15)


@pytest.fixture(params=["container", "service"])
def held(request: pytest.FixtureRequest) -> Held:
    made: Held = request.getfixturevalue(request.param)
    return made


def test_a_reload_lands_near_what_is_in_force(held: Held) -> None:
    _, found = held.disturb("systemctl daemon-reload")
    # Nothing that hurts: the same CPU, and memory that is somewhat more than the limit for a moment.
    assert set(found) <= {"memory.max"}, found
    assert MEMORY_MAX < int(found.get("memory.max", MEMORY_MAX + 1)) < 1.5 * MEMORY_MAX
    assert held.host.output(f"systemctl show -P CPUQuotaPerSecUSec {held.unit}") == "300ms"
    assert int(held.host.output(f"systemctl show -P MemoryMax {held.unit}")) > MEMORY_MAX


@pytest.mark.parametrize(
    ("command", "disturbed"),
    [
        ("echo 5000 100000 >{0}/cpu.max; echo 200000000 >{0}/memory.max", {"cpu.max", "memory.max"}),
        ("systemctl set-property --runtime {1} CPUQuota=70% MemoryMax=80M", {"cpu.max", "memory.max"}),
    ],
    ids=["bare write", "set-property"],
)
def test_foreign_limits_are_repaired_within_a_tick(held: Held, command: str, disturbed: set[str]) -> None:
    before = held.repairs()
    worst, found = held.disturb(command.format(held.folder, held.unit))
    print(f"{held.unit[:12]}: {command.split()[0]} {command.split()[1]}: {found} for at most {worst:.3f} s")
    # A repair may be quicker than the look at the files.
    assert set(found) <= disturbed
    assert worst < REPAIRED_S
    deadline = time.monotonic() + 5
    while held.repairs() == before:
        assert time.monotonic() < deadline, "nothing was repaired"


def test_docker_update_is_repaired_and_is_the_limit_to_give_back(container: Held) -> None:
    update = "docker update --cpus 0.4 --memory 80m --memory-swap 160m held"
    worst, found = container.disturb(update)
    print(f"docker update: {found} for at most {worst:.3f} s")
    assert set(found.items()) <= {("cpu.max", "40000 100000"), ("memory.max", str(80 * MIB))}
    assert worst < REPAIRED_S
    record = container.host.json("cat /var/lib/escra-agent/originals.json")
    (original,) = [entry for entry in record if entry["name"] == "held"]
    assert original["limit"] == [40000, 100000, 0]
    assert original["memory"][0] == 80 * MIB


def test_a_service_that_starts_again_with_our_limit_has_its_own_original(service: Held) -> None:
    """systemd keeps what a reload has read, also when the file is gone."""
    service.host.run(f"systemctl daemon-reload; systemctl restart {SERVICE}")
    in_force(service)
    record = service.host.json("cat /var/lib/escra-agent/originals.json")
    (original,) = [entry for entry in record if entry["name"] == "batch"]
    assert original["limit"] == [20000, 100000, 0]
    assert original["memory"][0] == 64 * MIB


def test_the_file_goes_with_the_unit_and_with_restore(held: Held) -> None:
    host = held.host
    if held.unit == SERVICE:
        host.run("systemctl stop escra-agent; test -f " + held.file)
        try:
            assert "unit files removed" in host.output("/opt/escra/bin/escra-agent restore")
            assert host.run(f"ls {FILES}/*.d/90-escra.conf", check=False).returncode != 0
            assert host.output(f"cat {held.folder}/cpu.max") == "20000 100000"
        finally:
            host.run("systemctl start escra-agent")
    else:
        host.run("docker rm -f held")
        host.wait_until(f"! test -e {FILES}/{held.unit}.d", 3)
