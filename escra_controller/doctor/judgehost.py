"""What the kernel, the clock and the other programs of a host mean for Escra.  Pure."""

import re
from collections.abc import Iterator

from escra_common.units import format_bytes
from escra_controller.doctor.facts import Docker, Finding, Host

SLOW_CLOCKS = {"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"}

# Programs that write the same limits, or kill where Escra would give: what they do, and what to do.  By the
# names of their processes, which the kernel cuts to 15 characters.
OTHERS: tuple[tuple[str, str, str], ...] = (
    (
        "kubelet",
        "writes the limits of pods, and again at every change of them",
        "label no container of a pod with escra.app",
    ),
    (
        "koordlet",
        "(Koordinator) writes cpu.cfs_quota_us, bursts and memory limits of pods",
        "turn off its cpuBurst, cpuSuppress and memoryEvict on this host, or label no pod",
    ),
    (
        "rubik|rubik-agent",
        "(quotaTurbo) raises and lowers the same CPU quotas",
        "turn quotaTurbo off on this host",
    ),
    (
        r"cri-resmgr|cri-resource-m.*|nri-resource-p.*|crane-agent|katalyst-agent",
        "places containers on processors and writes their CPU limits",
        "let it leave labelled containers alone: those pinned to processors are not managed",
    ),
    (
        "autothrottle|worker-daemon|senpai",
        "writes CPU quotas or memory.high ten times a second, as Escra does",
        "stop one of the two",
    ),
    (
        "systemd-oomd",
        "kills whole cgroups on memory pressure, also while Escra is about to give memory",
        "systemctl disable --now systemd-oomd, or leave ManagedOOM*= off for these units",
    ),
    (
        "earlyoom|nohang|nohang-desktop|psi-monitor|low-memory-moni.*",
        "kills processes when the host is short of memory, whatever limits say",
        "let it spare the containers (earlyoom --avoid), or stop it",
    ),
    (
        "cgrulesengd|cgconfigparser|ulatencyd|ananicy|ananicy-cpp|tuned",
        "moves processes between cgroups or writes their settings",
        "check that its rules leave containers and the configured cgroups alone",
    ),
    (
        "nomad|slurmd|slurmstepd|lxd|incusd",
        "writes the limits of the tasks it starts",
        "let Escra manage only what it did not start",
    ),
)


def judge(host: Host) -> Iterator[Finding]:
    yield from _rights(host)
    yield _kernel(host)
    yield from _cgroups(host)
    yield from _features(host)
    yield _swap(host)
    yield from _clock(host)
    yield from _resources(host)
    yield from competitors(host)


def _rights(host: Host) -> Iterator[Finding]:
    if not host.superuser:
        yield Finding(
            "rights", "warn", "not root: some of what follows could not be looked at", "sudo escra doctor"
        )


def _kernel(host: Host) -> Finding:
    name = f"Linux {host.release}"
    if host.cgroup == "v2" and host.version < (5, 9):
        return Finding(
            "kernel",
            "warn",
            f"{name}: below 5.9 tasks can lock up at memory.high, so memory is left alone on cgroup v2",
            "boot a kernel of 5.9 or later",
        )
    if (4, 18) <= host.version < (5, 4):
        return Finding(
            "kernel",
            "warn",
            f"{name}: from 4.18 to 5.3 unused quota expires: containers are throttled below their limit",
            "boot a kernel of 5.4 or later, or one with the fix (de53fd7a) in it",
        )
    return Finding("kernel", "ok", f"{name}, {host.cpus} processors")


def _cgroups(host: Host) -> Iterator[Finding]:
    if not host.cgroup:
        yield Finding(
            "cgroup",
            "bad",
            "no cgroup file system with CPU limits is mounted: there is nothing to manage",
            "mount -t cgroup2 none /sys/fs/cgroup, or run this on the host rather than in a container",
        )
        return
    if host.read_only:
        yield Finding(
            "cgroup",
            "bad",
            f"cgroup {host.cgroup} is mounted read-only: no limit can be written",
            "run this on the host rather than in a container; there: mount -o remount,rw /sys/fs/cgroup",
        )
    elif host.cgroup == "hybrid":
        yield Finding("cgroup", "ok", "hybrid: v1 controllers, with a v2 tree beside them")
    else:
        yield Finding("cgroup", "ok", host.cgroup)
    yield from _controllers(host)


def _controllers(host: Host) -> Iterator[Finding]:
    missing = {"cpu", "memory"} - host.controllers
    if "cpu" in missing:
        yield Finding(
            "controllers",
            "bad",
            "no cpu controller: CPU cannot be limited",
            "boot without cgroup_disable=cpu",
        )
    if "memory" in missing:
        yield Finding(
            "controllers",
            "warn",
            "no memory controller: memory is left alone",
            "boot with cgroup_enable=memory (Raspberry Pi, Debian on ARM), without cgroup_disable=memory",
        )
    withheld = sorted(host.controllers - host.handed_down) if host.handed_down is not None else []
    if withheld:
        yield Finding(
            "controllers",
            "warn",
            f"units are not given {' and '.join(withheld)}: containers have no such limits to write",
            "systemctl set-property system.slice CPUAccounting=yes MemoryAccounting=yes",
        )
    if not missing and not withheld:
        yield Finding("controllers", "ok", "cpu and memory")
    if host.quota is False:
        yield Finding(
            "quota",
            "bad",
            "the kernel has no CPU quotas (CONFIG_CFS_BANDWIDTH): CPU cannot be limited",
            "boot a kernel with CONFIG_CFS_BANDWIDTH=y",
        )


def _features(host: Host) -> Iterator[Finding]:
    burst = {True: "there", False: "not there (Linux 5.14 brought it)", None: "no cgroup to see it by"}
    yield Finding("burst", "ok", f"{burst[host.burst]}: it is used only with [policy] burst")
    pressure = "there" if host.pressure else "not there (boot with psi=1)"
    yield Finding("pressure", "ok", f"{pressure}; Escra does not need it")


def _swap(host: Host) -> Finding:
    if host.swap_total_bytes and host.swap_limits is False and "memory" in host.controllers:
        return Finding(
            "swap",
            "warn",
            f"{format_bytes(host.swap_total_bytes)} of swap, and no limit on a container's part of it: one "
            "at its memory limit swaps instead of asking for memory",
            "boot with swapaccount=1, or swapoff -a",
        )
    if not host.swap_total_bytes:
        return Finding("swap", "ok", "none")
    limits = "limited with memory" if host.swap_limits else "whether it can be limited is not known"
    return Finding("swap", "ok", f"{format_bytes(host.swap_total_bytes)}, {limits}")


def _clock(host: Host) -> Iterator[Finding]:
    match host.clock_synchronised:
        case True:
            yield Finding("clock", "ok", "synchronised")
        case False:
            yield Finding(
                "clock",
                "warn",
                "not synchronised: certificates may seem to have ended or not to have begun, and times in "
                "the logs of several hosts do not compare.  Control itself does not use it",
                "systemctl enable --now systemd-timesyncd (or chrony)",
            )
        case None:
            yield Finding("clock", "ok", "whether it is synchronised cannot be told here")
    if host.clock_source in SLOW_CLOCKS:
        yield Finding(
            "clocksource",
            "warn",
            f"{host.clock_source}: each look at the time costs a microsecond or more, ten times a second and "
            "container",
            "dmesg | grep -i tsc says why the faster one is not used; boot with tsc=reliable if it is sound",
        )
    else:
        yield Finding("clocksource", "ok", host.clock_source or "not known")


def _resources(host: Host) -> Iterator[Finding]:
    if host.open_files is not None and host.open_files[1]:
        used, most = host.open_files
        if used > 0.9 * most:
            yield Finding(
                "files",
                "bad",
                f"{used} of {most} open files of the whole host are in use: an agent needs about twenty for "
                "each container",
                f"sysctl -w fs.file-max={2 * most}",
            )
        else:
            yield Finding("files", "ok", f"{used} open on the host")


def competitors(host: Host) -> Iterator[Finding]:
    found = [
        Finding("others", "warn", f"{name} runs here: it {what}", advice)
        for pattern, what, advice in OTHERS
        for name in sorted(host.processes)
        if re.fullmatch(pattern, name)
    ]
    yield from found or [Finding("others", "ok", "nothing known that writes limits or kills for memory")]


def judge_docker(docker: Docker, *, systemd: bool) -> Iterator[Finding]:
    if docker.error:
        yield Finding(
            "docker",
            "warn",
            f"no answer at {docker.socket}: {docker.error}; containers are not found by their labels",
            "systemctl start docker; without Docker on this host: [docker] enabled = false in agent.toml",
        )
        return
    if docker.rootless:
        yield Finding(
            "docker",
            "warn",
            f"Docker {docker.version} at {docker.socket} runs rootless: its containers' cgroups are a user's",
            "point [docker] socket in agent.toml at the host's engine",
        )
        return
    yield Finding("docker", "ok", f"Docker {docker.version}, cgroup driver {docker.driver}")
    if docker.driver == "cgroupfs" and systemd:
        yield Finding(
            "driver",
            "warn",
            "Docker writes cgroups beside systemd (driver cgroupfs): two programs manage one tree, and "
            "systemd may remove what it does not know",
            'put "exec-opts": ["native.cgroupdriver=systemd"] into /etc/docker/daemon.json, restart Docker',
        )
