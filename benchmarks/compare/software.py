"""What runs in each container of ``compare --docker``: image, files from here, command.  Pure.

The first process is a shell that starts its program again whenever it ends: what the kernel kills for its
memory is back at once, in the same cgroup, with the limits that are in force.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.compare.applications import Design
from benchmarks.compare.httpwire import PORT
from tests.debian_image import DATA, DATABASES, POSTGRESQL, USER, WEB

# PostgreSQL with what inside/postgres.sql puts into it.
FILLED = "escra-compare/postgres"
CODE = "/srv/benchmarks"

_AGAIN = 'while :; do "$@"; done 2>&1'
# What was freed goes back to the kernel, and soon: glibc would keep more and more of it, jemalloc for 10 s.
_PYTHON = ("PYTHONPATH=/srv", "PYTHONDONTWRITEBYTECODE=1", "MALLOC_MMAP_THRESHOLD_=65536")
_JEMALLOC = ("MALLOC_CONF=dirty_decay_ms:500",)
_REDIS = ("--save", "", "--appendonly", "no", "--protected-mode", "no", "--loglevel", "warning")
_SETTINGS = {
    "listen_addresses": "*",
    "shared_buffers": "24MB",
    "huge_pages": "off",
    "jit": "off",
    # What is measured is not this machine's disk.
    "fsync": "off",
    "synchronous_commit": "off",
    "autovacuum_naptime": "10min",
}


@dataclass(frozen=True, slots=True)
class Software:
    """``mounts`` are read-only: paths here, and where they are in the container."""

    image: str
    command: tuple[str, ...]
    mounts: Mapping[str, str] = field(default_factory=dict)
    environment: tuple[str, ...] = ()

    def run_options(self, *options: str) -> list[str]:
        """Of ``docker run``."""
        own = [f"--user={USER}", "--cap-drop=ALL"]
        own += [f"--volume={here}:{there}:ro" for here, there in self.mounts.items()]
        own += [f"--env={setting}" for setting in self.environment]
        shell = ["/bin/sh", "-c", _AGAIN, "sh"]
        return ["--detach", *own, *options, self.image, *shell, *self.command]


def software_of(service: str, code: str, nginx_conf: str) -> Software:
    """``code`` is the folder ``benchmarks``, and ``nginx_conf`` a file, both on this machine."""
    if service == "nginx":
        started = ("/usr/sbin/nginx", "-c", "/nginx.conf", "-g", "daemon off;")
        return Software(WEB, started, {nginx_conf: "/nginx.conf"})
    if service == "redis":
        return Software(DATABASES, ("redis-server", *_REDIS), environment=_JEMALLOC)
    if service == "postgres":
        settings = (part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}"))
        return Software(FILLED, (f"{POSTGRESQL}/postgres", "-D", f"{DATA}/pg", "-k", "/tmp", *settings))
    python = ("/usr/bin/python3", "-m", "benchmarks.compare.inside.service", service)
    return Software(WEB, python, {code: CODE}, _PYTHON)


def fill_script(sql: str) -> str:
    """Makes PostgreSQL's data, with the statements of the file ``sql``."""
    control = f"{POSTGRESQL}/pg_ctl -D {DATA}/pg -w -o '-k /tmp -c fsync=off -c listen_addresses='"
    return (
        f"{POSTGRESQL}/initdb -D {DATA}/pg -U postgres -A trust --locale=C --no-sync"
        f" && echo 'host all all 0.0.0.0/0 trust' >> {DATA}/pg/pg_hba.conf"
        f" && {control} start && {POSTGRESQL}/psql -h /tmp -U postgres -q -v ON_ERROR_STOP=1 -f {sql}"
        f" && {control} stop"
    )


def nginx_conf(design: Design) -> str:
    """A reverse proxy for the services behind it."""
    behind = sorted({stage[0].service for call in design.operations.values() for stage in call.stages})
    upstreams = "".join(f"upstream {name} {{ server {name}:{PORT}; keepalive 32; }}\n" for name in behind)
    locations = "".join(f"location = /{name} {{ proxy_pass http://{name}; }}\n" for name in behind)
    return f"""\
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events {{ worker_connections 4096; }}
http {{
access_log off;
client_body_temp_path /tmp/body;
proxy_temp_path /tmp/proxy;
fastcgi_temp_path /tmp/fastcgi;
uwsgi_temp_path /tmp/uwsgi;
scgi_temp_path /tmp/scgi;
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_buffers 8 16k;
{upstreams}server {{
listen {PORT};
{locations}}}
}}
"""
