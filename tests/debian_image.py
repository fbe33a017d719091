"""Docker images made from Debian's packages: nothing can be pulled.

The packages are unpacked, no maintainer script is run, and nothing is installed on this machine.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel_cgroups import BUSYBOX

DATABASES = "escra-test/databases"
# In the image: where Debian keeps the server's programs, and a folder of the only user, 70.
POSTGRESQL = "/usr/lib/postgresql/15/bin"
DATA = "/data"
USER = "70:70"


@dataclass(frozen=True, slots=True)
class Recipe:
    """``name`` is the file's; ``packages`` come with all they need, except for ``not_needed``."""

    name: str
    packages: tuple[str, ...]
    not_needed: frozenset[str] = frozenset()


# What only maintainer scripts need.
_NOT_NEEDED = {
    *("adduser", "debconf", "dpkg", "init-system-helpers", "locales", "lsb-base", "postgresql-common"),
    *("sensible-utils", "ssl-cert", "tar"),
}
# LLVM is for a feature that tests can do without.
_DATABASES = Recipe("databases", ("postgresql-15", "redis-server"), frozenset({"libllvm14"}))
_UNREAD = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/postgresql/15/man"),
    *("usr/lib/postgresql/15/lib/bitcode", "usr/lib/x86_64-linux-gnu/gconv"),
)
_PYTHON = "/usr/bin/python3.11"
_DEPENDENCY = re.compile(r" (?P<alternative>[ |])(?:Pre)?Depends: (?P<package>[^<]\S*)")


class CannotBuild(RuntimeError):
    """This machine's apt cannot give the packages."""


def databases_tar() -> Path:
    """PostgreSQL and redis, for ``docker import``.  Raises CannotBuild."""
    return image_tar(_DATABASES)


def image_tar(recipe: Recipe) -> Path:
    """For ``docker import``; made once per user and version of the packages.  Raises CannotBuild."""
    if shutil.which("apt-get") is None:
        raise CannotBuild("no apt-get on this machine")
    packages = sorted(_closure(recipe))
    # 'http://.../redis-tools_7.deb' redis-tools_7.deb 991988 SHA256:...
    uris = _apt("apt-get", "download", "--print-uris", *packages)
    made_of = Path(__file__).read_text() + "".join(sorted(uris.splitlines()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "escra-test")
    tar = cache / f"{recipe.name}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.tar"
    if not tar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for outdated in cache.glob(f"{recipe.name}-*.tar"):
            outdated.unlink(missing_ok=True)
        _make(packages, tar)
    return tar


def _closure(recipe: Recipe) -> set[str]:
    """The packages and all they need, the first of each choice."""
    try:
        needs = _dependencies(recipe)
    except CannotBuild:  # a machine that has never looked
        _apt("apt-get", "update", "-qq")
        needs = _dependencies(recipe)
    found: set[str] = set()
    waiting = list(recipe.packages)
    while waiting:
        package = waiting.pop()
        if package not in found | _NOT_NEEDED | recipe.not_needed:
            found.add(package)
            waiting += needs[package]
    return found


def _dependencies(recipe: Recipe) -> dict[str, list[str]]:
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    ignored = [f"--no-{kind}" for kind in kinds]
    needs: dict[str, list[str]] = {}
    chosen = False
    for line in _apt("apt-cache", "depends", "--recurse", *ignored, *recipe.packages).splitlines():
        if not line.startswith(" "):
            needs[line] = current = []
        elif found := _DEPENDENCY.fullmatch(line):
            if not chosen:
                current.append(found["package"])
            chosen = found["alternative"] == "|"
    return needs


def _make(packages: list[str], tar: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="escra-image-", dir=tar.parent) as work:
        downloads, tree = Path(work, "packages"), Path(work, "tree")
        downloads.mkdir()
        _apt("apt-get", "download", "-qq", *packages, folder=downloads)
        for package in downloads.iterdir():
            subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
        for unread in _UNREAD:
            shutil.rmtree(tree / unread, ignore_errors=True)
        _complete(tree)
        if (tree / _PYTHON.lstrip("/")).exists():
            _compile(tree)
        done = Path(work, tar.name)
        subprocess.run(["tar", "-C", tree, "-cf", done, "."], check=True)
        done.replace(tar)


def _compile(tree: Path) -> None:
    """Else every start of a Python program would; some files are there to be no Python."""
    folders = ("/usr/lib/python3", "/usr/lib/python3.11")
    subprocess.run(["chroot", tree, _PYTHON, "-m", "compileall", "-qq", *folders], check=False)


def _complete(tree: Path) -> None:
    """What maintainer scripts and base packages would have made."""
    for path, text in _etc():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    (tree / "bin").mkdir(exist_ok=True)
    shutil.copy(os.path.realpath(BUSYBOX), tree / "bin/busybox")
    for command in ("sh", "awk", "seq"):
        (tree / "bin" / command).symlink_to("busybox")
    (tree / "tmp").mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    data = tree / DATA.strip("/")
    data.mkdir(mode=0o700)
    os.chown(data, *map(int, USER.split(":")))


def _etc() -> Iterator[tuple[str, str]]:
    user, group = USER.split(":")
    yield "etc/passwd", f"root:x:0:0::/:/bin/sh\npostgres:x:{user}:{group}::{DATA}:/bin/sh\n"
    yield "etc/group", f"root:x:0:\npostgres:x:{group}:\n"


def _apt(*command: str, folder: Path | None = None) -> str:
    # Else root's apt downloads as another user, who cannot write into our folder.
    options = ("-o", "APT::Sandbox::User=root")
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"{' '.join(command)[:200]}: {done.stderr.strip()[-500:]}")
    return done.stdout
