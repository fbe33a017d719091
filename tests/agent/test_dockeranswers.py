"""What is taken of Docker's answers, and that nonsense is one container's trouble."""

import copy
from typing import Any

import pytest

from escra_agent.dockeranswers import NotUnderstood, container_of, id_of
from escra_common.messages import CpuLimit

RUNNING: dict[str, Any] = {
    "Id": "ab" * 32,
    "Name": "/web",
    "State": {"Running": True, "Pid": 42, "Status": "running"},
    "Config": {"Labels": {"escra.app": "shop"}},
    "HostConfig": {"NanoCpus": 500_000_000, "CpuPeriod": 0, "Memory": 1 << 26, "MemorySwap": -1},
}


def shown(**changes: Any) -> dict[str, Any]:
    """``State__Pid=7`` changes what is in ``State``."""
    answer = copy.deepcopy(RUNNING)
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            answer[outer][inner] = value
        else:
            answer[outer] = value
    return answer


def test_a_running_container() -> None:
    found = container_of(RUNNING)
    assert found is not None
    assert (found.name, found.pid, found.labels) == ("web", 42, {"escra.app": "shop"})
    assert found.cpu == CpuLimit(50_000, 100_000)
    assert (found.memory_bytes, found.memory_swap_bytes) == (1 << 26, None)


@pytest.mark.parametrize("changes", [{"State__Running": False}, {"State__Pid": 0}])
def test_what_has_no_process_does_not_run(changes: dict[str, Any]) -> None:
    assert container_of(shown(**changes)) is None


def test_docker_leaves_out_what_was_not_given() -> None:
    found = container_of(shown(Config__Labels=None, HostConfig={}))
    assert found is not None
    assert (found.labels, found.cpu, found.memory_bytes) == ({}, CpuLimit(None, 100_000), None)


def test_a_name_longer_than_the_wire_takes_is_cut() -> None:
    found = container_of(shown(Name="/" + "n" * 300))
    assert found is not None
    assert found.name == "n" * 255


@pytest.mark.parametrize(
    "changes",
    [
        {"Id": ""},
        {"Name": 7},
        {"Config": []},
        {"State": None},
        {"State__Pid": -1},
        {"State__Pid": "../../x"},
        {"Config__Labels": ["escra.app"]},
        {"Config__Labels": {"escra.app": "\ud800"}},
        {"HostConfig__CpuQuota": 10**13},
        {"HostConfig__NanoCpus": 0, "HostConfig__CpuPeriod": 5},
    ],
)
def test_nonsense_is_not_understood(changes: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood, match=r"`|period|surrogate"):
        container_of(shown(**changes))


@pytest.mark.parametrize("event", [{}, [], None, {"Actor": {}}, {"Actor": {"ID": ""}}, {"Actor": {"ID": 1}}])
def test_an_event_about_nobody(event: object) -> None:
    with pytest.raises(NotUnderstood, match=r"`|period|surrogate"):
        id_of(event)


def test_an_event() -> None:
    assert id_of({"Type": "container", "Actor": {"ID": "abc", "Attributes": {}}}) == "abc"
