"""Docker images from Debian's packages: nothing can be pulled.

The packages are unpacked and nothing of theirs is installed on this machine; no maintainer script is run.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernel_cgroups import BUSYBOX

DATABASES = "escra-test/databases"
WEB = "escra-test/web"
PILLOW = "escra-test/pillow"
# In the image: where Debian keeps the server's programs, and a folder of the only user, 70.
POSTGRESQL = "/usr/lib/postgresql/15/bin"
DATA = "/data"
USER = "70:70"

# What only maintainer scripts need.
_SCRIPTS_NEED = {"adduser", "debconf", "dpkg", "init-system-helpers", "lsb-base", "sensible-utils", "tar"}
_UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/x86_64-linux-gnu/gconv")
_DEPENDENCY = re.compile(r" (?P<alternative>[ |])(?:Pre)?Depends: (?P<package>[^<]\S*)")


class CannotBuild(RuntimeError):
    """This machine's apt cannot give the packages."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """``packages`` and all they need except ``without``; ``complete`` gets the tree, less ``unread``."""

    name: str
    packages: Sequence[str]
    without: Sequence[str] = ()
    unread: Sequence[str] = ()
    complete: Callable[[Path], None] = lambda tree: None


def databases_tar() -> Path:
    """PostgreSQL and redis; see image_tar."""
    return image_tar(_DATABASES)


def web_tar() -> Path:
    """nginx, and Python with what web services import; see image_tar."""
    return image_tar(_WEB)


def pillow_tar() -> Path:
    """Python with Pillow; see image_tar."""
    return image_tar(_PILLOW)


def image_tar(recipe: Recipe) -> Path:
    """For ``docker import``; made once per user and version of the packages.  Raises CannotBuild."""
    if shutil.which("apt-get") is None:
        raise CannotBuild("no apt-get on this machine")
    packages = sorted(_closure(recipe))
    # 'http://.../redis-tools_7.deb' redis-tools_7.deb 991988 SHA256:...
    uris = _apt("apt-get", "download", "--print-uris", *packages)
    key = Path(__file__).read_text() + "".join(sorted(uris.splitlines()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "escra-test")
    tar = cache / f"{recipe.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.tar"
    if not tar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for outdated in cache.glob(f"{recipe.name}-*.tar"):
            outdated.unlink(missing_ok=True)
        _make(recipe, packages, tar)
    return tar


def _closure(recipe: Recipe) -> set[str]:
    """The packages and all they need, the first of each choice."""
    try:
        needs = _dependencies(recipe.packages)
    except CannotBuild:  # a machine that has never looked
        _apt("apt-get", "update", "-qq")
        needs = _dependencies(recipe.packages)
    found: set[str] = set()
    waiting = list(recipe.packages)
    while waiting:
        package = waiting.pop()
        if package not in found | _SCRIPTS_NEED | {*recipe.without}:
            found.add(package)
            waiting += needs[package]
    return found


def _dependencies(packages: Sequence[str]) -> dict[str, list[str]]:
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    ignored = [f"--no-{kind}" for kind in kinds]
    needs: dict[str, list[str]] = {}
    chosen = False
    for line in _apt("apt-cache", "depends", "--recurse", *ignored, *packages).splitlines():
        if not line.startswith(" "):
            needs[line] = current = []
        elif found := _DEPENDENCY.fullmatch(line):
            if not chosen:
                current.append(found["package"])
            chosen = found["alternative"] == "|"
    return needs


def _make(recipe: Recipe, packages: list[str], tar: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="escra-image-", dir=tar.parent) as work:
        downloads, tree = Path(work, "packages"), Path(work, "tree")
        downloads.mkdir()
        _apt("apt-get", "download", "-qq", *packages, folder=downloads)
        for package in downloads.iterdir():
            subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
        for unread in (*_UNREAD, *recipe.unread):
            shutil.rmtree(tree / unread, ignore_errors=True)
        _add_shell(tree)
        recipe.complete(tree)
        done = Path(work, tar.name)
        subprocess.run(["tar", "-C", tree, "-cf", done, "."], check=True)
        done.replace(tar)


def _add_shell(tree: Path) -> None:
    """And what else base packages would have made."""
    (tree / "bin").mkdir(exist_ok=True)
    shutil.copy(os.path.realpath(BUSYBOX), tree / "bin/busybox")
    for command in ("sh", "awk", "seq"):
        (tree / "bin" / command).symlink_to("busybox")
    (tree / "tmp").mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)


def _add_user(tree: Path) -> None:
    """And a folder of its own; what servers' maintainer scripts would have made."""
    for path, text in _etc():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    data = tree / DATA.strip("/")
    data.mkdir(mode=0o700)
    os.chown(data, *map(int, USER.split(":")))


def _compile_python(tree: Path) -> None:
    """As Python's maintainer scripts do; else every container would compile what it imports."""
    compiling = ("/usr/bin/python3", "-m", "compileall", "-q", "/usr/lib/python3", "/usr/lib/python3.11")
    subprocess.run(["chroot", str(tree), *compiling], check=True, capture_output=True)


def _complete_web(tree: Path) -> None:
    _add_user(tree)
    _compile_python(tree)


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


_DATABASES = Recipe(
    "databases",
    ("postgresql-15", "redis-server"),
    # LLVM is for a feature that tests can do without.
    without=("locales", "postgresql-common", "ssl-cert", "libllvm14"),
    unread=("usr/share/postgresql/15/man", "usr/lib/postgresql/15/lib/bitcode"),
    complete=_add_user,
)
_WEB = Recipe(
    "web",
    (
        *("nginx", "python3-aiohttp", "python3-asyncpg", "python3-jinja2", "python3-pil", "python3-redis"),
        "python3-uvloop",
    ),
    without=("nginx-common", "iproute2", "perl", "mailcap", "media-types", "mime-support"),
    unread=("usr/share/perl", "usr/lib/python3.11/test"),
    complete=_complete_web,
)
_PILLOW = Recipe(
    "pillow",
    ("python3", "python3-pil"),
    without=("mailcap", "media-types", "mime-support"),
    unread=("usr/share/perl", "usr/lib/python3.11/test"),
    complete=_compile_python,
)
