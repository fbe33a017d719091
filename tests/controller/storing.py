"""What the tests of the store share."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from escra_controller.bounds import Bound
from escra_controller.events import Decision
from escra_controller.storage.values import Place, Recovered
from escra_controller.storage.writer import Level, Limits
from escra_controller.store import Store

# Soon again, and never twice in a test that does not wait for it.
QUICK = Limits(retry_s=0.3, busy_s=0.05)


@dataclass
class News:
    heard: list[tuple[Level, str]] = field(default_factory=list)

    def __call__(self, level: Level, sentence: str) -> None:
        self.heard.append((level, sentence))

    def of(self, level: Level) -> list[str]:
        return [sentence for heard, sentence in self.heard if heard == level]


@contextlib.contextmanager
def opened(
    directory: Path, news: News | None = None, limits: Limits = QUICK
) -> Iterator[tuple[Store, Recovered]]:
    """Closed at the end as a crash would leave it, but for what is queued."""
    store, recovered = Store.open(directory, news or News(), limits=limits)
    try:
        yield store, recovered
    finally:
        store.close(clean=False)


def asked(store: Store, bounds: Mapping[Place, Bound]) -> threading.Event:
    """Set once the bounds are reported."""
    event = threading.Event()
    store.secure(bounds, event.set)
    return event


def secure(store: Store, bounds: Mapping[Place, Bound]) -> None:
    assert asked(store, bounds).wait(5), store.trouble


def many(hosts: int = 100, apps: int = 10) -> dict[Place, Bound]:
    places = [(f"host-{h}", f"app-{a}") for h in range(hosts) for a in range(apps)]
    return {place: Bound(n + 1, (n + 1) << 20) for n, place in enumerate(places)}


def decision(n: int, app: str = "shop", cause: str = "throttled in 31% of its periods") -> Decision:
    return Decision(float(n), app, "h1", "web", 7, "cpu", "throttled", cause, None, n, {"ratio": 0.31})


def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for it."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        pause.wait(0.01)
    assert true()


def asides(directory: Path) -> list[str]:
    found = [path.name for path in directory.glob("controller.db.unusable-*")]
    return sorted(name for name in found if not name.endswith(("-wal", "-shm")))


@contextlib.contextmanager
def small_disk(path: Path, kib: int) -> Iterator[Path]:
    """A file system that is full soon; needs root."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "escra-test", str(path)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(directory: Path) -> Path:
    """Take the last byte of a file system."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return ballast


@contextlib.contextmanager
def nobodys_directory() -> Iterator[Path]:
    """One of user 65534's, where that user can reach it; needs root."""
    directory = Path("/tmp") / f"escra-nobodys-{os.getpid()}"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
