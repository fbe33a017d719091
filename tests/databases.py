"""redis and PostgreSQL as people run them, and a growth of their data to four times its size.

Scripts for the shell inside a container of the image DATABASES; each ends with status 0 or has failed.
"""

from dataclasses import dataclass

from tests.debian_image import DATA, DATABASES, POSTGRESQL, USER


@dataclass(frozen=True, slots=True)
class Database:
    """``memory_mib`` holds what ``fill`` puts in, and not what is there after ``grow``.

    ``count`` prints the number of records: ``records`` after ``fill``, four times that after ``grow``.
    """

    name: str
    memory_mib: int
    serve: str
    ready: str
    fill: str
    grow: str
    count: str
    records: int

    def run_options(self, *options: str) -> list[str]:
        """Of `docker run`: the database is the container's first process."""
        limits = (f"--memory={self.memory_mib}m", "--network=none", f"--user={USER}", "--stop-timeout=0")
        return ["--detach", f"--name={self.name}", *limits, *options, DATABASES, "/bin/sh", "-c", self.serve]


_CLI = f"redis-cli -s {DATA}/socket"
_KEYS = 25_000


def _set_keys(first: int, end: int) -> str:
    """Values of 1000 bytes, through the server's socket."""
    command = f'for (i = {first}; i < {end}; i++) printf "SET key:%d %01000d\\r\\n", i, i'
    # The last of a pipe decides about its status, and redis-cli counts the errors.
    return f"awk 'BEGIN {{ {command} }}' | {_CLI} --pipe"


REDIS = Database(
    name="redis",
    memory_mib=64,
    serve=f"exec redis-server --port 0 --unixsocket {DATA}/socket --save '' --appendonly no",
    ready=f"{_CLI} ping",
    fill=_set_keys(0, _KEYS),
    grow=_set_keys(_KEYS, 4 * _KEYS),
    count=f"{_CLI} dbsize",
    records=_KEYS,
)

_SCALE = 2
_ACCOUNTS = 100_000 * _SCALE
_PSQL = f"{POSTGRESQL}/psql -h /tmp -At -c"
_PGBENCH = f"{POSTGRESQL}/pgbench -h /tmp"
_SETTINGS = {
    "listen_addresses": "",
    # Room for all of the data after the growth: shared memory cannot be dropped as file cache can.
    "shared_buffers": "160MB",
    "huge_pages": "off",
    "jit": "off",
    "fsync": "off",
}

POSTGRES = Database(
    name="postgres",
    memory_mib=96,
    serve=f"{POSTGRESQL}/initdb -D {DATA}/pg -U postgres -A trust --locale=C --no-sync"
    f" && exec {POSTGRESQL}/postgres -D {DATA}/pg -k /tmp "
    + " ".join(f"-c {name}='{value}'" for name, value in _SETTINGS.items()),
    ready=f"{POSTGRESQL}/pg_isready -h /tmp",
    fill=f"{_PGBENCH} -i -q -s {_SCALE}",
    # The usual load goes on meanwhile, and no transaction of it may fail.
    grow=f"{_PGBENCH} -n -c 4 -T 8 & {_PSQL} 'INSERT INTO pgbench_accounts"
    f" SELECT aid + n * {_ACCOUNTS}, bid, abalance, filler FROM pgbench_accounts, generate_series(1, 3) n'"
    " && wait $!",
    count=f"{_PSQL} 'SELECT count(*) FROM pgbench_accounts'",
    records=_ACCOUNTS,
)
