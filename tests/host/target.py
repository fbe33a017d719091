"""The target host, reached through a command prefix such as ``ssh root@throwaway``.

The prefix must run the words that follow it as root, pass standard input on, and return the
command's exit status.  Scripts travel on standard input, so nothing is ever quoted: what the
prefix does to its words (ssh hands them to a shell, others do not) makes no difference.
"""

import io
import json
import shlex
import subprocess
import tarfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Prints the CPU limits of the given cgroups every 20 ms: [[seconds, [cores or null, ...]], ...]
_WATCH = """
import json, time
def cores(group):
    quota, period = open(group + "/cpu.max").read().split()
    return None if quota == "max" else int(quota) / int(period)
began, rows = time.monotonic(), []
while (now := time.monotonic() - began) < {seconds}:
    rows.append([now, [cores(group) for group in {groups}]])
    time.sleep(0.02)
print(json.dumps(rows))
"""


class Host:
    def __init__(self, prefix: str) -> None:
        self._prefix = shlex.split(prefix)
        # How long `make install` took, once it has run.
        self.install_s = 0.0

    def run(
        self, script: str, *, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a POSIX shell script; ``check`` stops at the first command that fails, and fails the test."""
        # Braces make the shell read all of it before a command can read from the same pipe.
        wrapped = f"{{ {'set -e' if check else ':'}\n{textwrap.dedent(script)}\n}} </dev/null\n"
        done = subprocess.run(
            [*self._prefix, "sh", "-s"], input=wrapped, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            raise AssertionError(
                f"exit status {done.returncode} from\n{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def output(self, script: str, *, timeout: float = 60) -> str:
        return self.run(script, timeout=timeout).stdout.strip()

    def json(self, script: str) -> Any:
        return json.loads(self.output(script))

    def json_lines(self, script: str) -> list[Any]:
        return [json.loads(line) for line in self.output(script).splitlines()]

    def write(self, path: str, text: str) -> None:
        self.run(f"cat >{path} <<'END-OF-FILE'\n{textwrap.dedent(text).strip()}\nEND-OF-FILE\n")

    def wait_until(self, condition: str, seconds: float) -> float:
        """Wait until a shell condition holds; returns how long it took, by the host's clock."""
        done = self.run(
            f"""
            now() {{ read -r up rest </proc/uptime; echo ${{up%.*}}${{up#*.}}; }}
            began=$(now)
            while :; do
                if {condition}; then echo $(($(now) - began)); exit 0; fi
                [ $(now) -lt $((began + {round(seconds * 100)})) ] || exit 1
                sleep 0.1
            done
            """,
            check=False,
            timeout=seconds + 60,
        )
        assert done.returncode == 0, f"not within {seconds} s: {condition}\n{done.stdout}{done.stderr}"
        return int(done.stdout.split()[-1]) / 100

    def watch(self, groups: Sequence[str], seconds: float, first: str = "") -> list[list[float | None]]:
        """The CPU limits of cgroups, in cores, as the kernel holds them over some seconds.

        ``first`` is a command to run just before.
        """
        code = _WATCH.format(seconds=seconds, groups=list(groups))
        rows = self.json(f"{first}\npython3 - <<'END'\n{code}\nEND")
        assert len(rows) > seconds * 5, "the host is too slow to watch"
        return [limits for _, limits in rows]

    def put(self, tree: Path, names: Sequence[str], destination: str) -> None:
        """Copy files and folders of ``tree``, without what Python leaves in them."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in names:
                tar.add(
                    tree / name, name, filter=lambda entry: None if "__pycache__" in entry.name else entry
                )
        self.run(f"mkdir -p {destination}")
        command = [*self._prefix, "tar", "-C", destination, "--no-same-owner", "-xf", "-"]
        subprocess.run(command, input=archive.getvalue(), check=True, timeout=120)
