"""What a disk and a Docker Engine give back: the record of original limits, and answers of the API."""

import json
from pathlib import Path

from escra_agent.dockeranswers import NotUnderstood, container_of, id_of
from escra_agent.errors import CgroupGone, CgroupUnusable
from escra_agent.hierarchy import Hierarchy
from escra_agent.originals import Original, OriginalsStore, StoreError
from escra_agent.sources import labels_of
from escra_common.messages import Ack, Appeared, Container, MemoryAck, MemoryLimit
from tests.fuzz.expect import readable, sendable
from tests.fuzz.limits import Run


def originals(folder: Path) -> Run:
    """The store's file as it may be found after anything."""
    tree = Hierarchy("v2", {}, str(folder))
    path = folder / "originals.json"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        store = OriginalsStore(path, "boot-1")
        try:
            said = store.load()
        except StoreError as error:
            readable(error)
            return
        for line in said:
            line.encode()
        for original in store.all():
            _check_original(original, tree)
        for aside in folder.glob("*.damaged-*"):
            assert said
            assert not store.all()
            aside.unlink()

    return run


def _check_original(original: Original, tree: Hierarchy) -> None:
    sendable(Ack(1, 0, original.limit))
    if original.memory is not None:
        sendable(MemoryAck(1, 0, original.memory))
    try:
        tree.open_paths(original.paths).close()
    except (CgroupGone, CgroupUnusable) as error:
        readable(error)


def docker(_: Path) -> Run:
    """JSON of ``docker inspect``; of an event, if the first byte is no bracket."""

    def run(data: bytes) -> None:
        event = data[:1] == b"e"
        try:
            said = json.loads(data[1:] if event else data)
        except (ValueError, RecursionError):
            return  # the library's own concern
        try:
            if event:
                assert isinstance(id_of(said), str)
                return
            container = container_of(said)
        except NotUnderstood as error:
            readable(error)
            return
        if container is None:
            return
        labels, problem = labels_of(container)
        told = Container(
            1,
            container.id,
            container.name,
            labels.app,
            "/a",
            labels.mode,
            container.cpu,
            container.cpu,
            problem=problem[:1000],
        )
        sendable(Appeared(told))
        sendable(MemoryAck(1, 0, MemoryLimit(container.memory_bytes, None, container.memory_swap_bytes)))

    return run
