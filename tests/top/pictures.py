"""Pictures as the controller sends them, of what a test needs."""

from typing import Any

MIB = 1 << 20


def container(
    name: str,
    app: str = "shop",
    host: str = "alpha",
    *,
    cpu: float = 0.5,
    cpu_limit: float | None = 1.0,
    throttled: float = 0.0,
    memory: int = 32 * MIB,
    memory_limit: int | None = 64 * MIB,
    oom_kills: int = 0,
    state: str = "managed",
) -> dict[str, Any]:
    return {
        "id": f"id-of-{name}",
        "name": name,
        "app": app,
        "host": host,
        "cgroup": f"/{name}",
        "state": state,
        "problem": "",
        "cpu": {"limit_cores": cpu_limit, "used_cores": cpu, "throttled_ratio": throttled},
        "memory": {"limit_bytes": memory_limit, "used_bytes": memory, "managed": True, "problem": ""},
        "oom_events": 0,
        "oom_kills": oom_kills,
    }


def picture(*containers: dict[str, Any], at: float = 0.0, problems: tuple[str, ...] = ()) -> dict[str, Any]:
    apps = sorted({row["app"] for row in containers})
    hosts = sorted({row["host"] for row in containers})
    return {
        "at": at,
        "status": {"state": "degraded" if problems else "ok", "problems": list(problems)},
        "apps": [_app(name, [row for row in containers if row["app"] == name]) for name in apps],
        "containers": list(containers),
        "agents": [_agent(name, sum(row["host"] == name for row in containers)) for name in hosts],
    }


def _app(name: str, containers: list[dict[str, Any]]) -> dict[str, Any]:
    cpu = sum(row["cpu"]["used_cores"] for row in containers)
    memory = sum(row["memory"]["used_bytes"] for row in containers)
    return {
        "name": name,
        "cpu": {"limit_cores": 4.0, "allocated_cores": 2.0, "used_cores": cpu},
        "memory": {"limit_bytes": 512 * MIB, "allocated_bytes": 256 * MIB, "used_bytes": memory},
        "containers": len(containers),
        "hosts": len({row["host"] for row in containers}),
    }


def _agent(name: str, containers: int) -> dict[str, Any]:
    return {
        "host": name,
        "state": "connected",
        "cgroup_version": "v2",
        "containers": containers,
        "last_seen_s": 0.1,
        "version": "escra 0.1.0",
        "cpus": 8,
        "memory_bytes": 16 << 30,
        "late_ticks": 0,
        "drift_repairs": 0,
    }
