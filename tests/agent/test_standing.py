"""Whom an agent follows, and what it remembers of it."""

from pathlib import Path

import pytest

from escra_agent.standing import STAMP_EVERY_S, Standing, StandingError, StandingFile
from escra_common.messages import AppTerms, Hello
from escra_common.session import hello

RESTORES = AppTerms("shop", "restore", 60)


def controller(host: str, epoch: int, *, standby: bool = False) -> Hello:
    return hello("controller", host, epoch=epoch, standby=standby)


@pytest.mark.parametrize(
    ("found", "objection"),
    [
        (controller("a", 3), ""),
        (controller("b", 4), ""),
        (controller("a", 2), "a leads epoch 2, but a has taken over with epoch 3"),
        (controller("b", 3), "b is a second controller: this agent follows a"),
        (controller("b", 9, standby=True), "b is a standby"),
    ],
)
def test_only_the_leader_or_a_later_one_is_obeyed(found: Hello, objection: str) -> None:
    said = Standing("boot", 3, "a").objection(found)
    assert said.startswith(objection)
    assert bool(said) == bool(objection)


def test_one_that_follows_nobody_yet_takes_whoever_leads() -> None:
    assert Standing("boot").objection(controller("a", 0)) == ""


def test_it_outlives_the_agent_and_after_a_reboot_only_the_leader_does(tmp_path: Path) -> None:
    path = tmp_path / "standing.json"
    file = StandingFile(path, "boot")
    assert file.follow(controller("a", 3))
    assert not file.follow(controller("a", 3))
    assert file.agree([RESTORES])
    assert not file.agree([RESTORES])
    assert file.heard(100.0), "the first stamp"
    assert file.counted(5)
    assert not file.counted(5)
    file.save()
    assert not file.heard(100.0 + STAMP_EVERY_S - 1)
    assert file.heard(100.0 + STAMP_EVERY_S)
    again = StandingFile(path, "boot").standing
    assert (again.epoch, again.leader, again.terms, again.heard_s) == (3, "a", [RESTORES], 100.0)
    assert (again.hosts, again.hosts_epoch) == (5, 3)
    assert again.lapsed(160.0) == []
    assert again.lapsed(160.1) == [RESTORES]
    rebooted = StandingFile(path, "another boot").standing
    assert (rebooted.epoch, rebooted.leader, rebooted.terms) == (3, "a", [])
    assert (rebooted.hosts, rebooted.hosts_epoch) == (5, 3)


def test_a_damaged_file_is_reported_and_a_full_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "standing.json"
    path.write_text("{")
    file = StandingFile(path, "boot")
    assert "an older controller might be obeyed" in file.trouble
    path.unlink()
    path.mkdir()
    file.follow(controller("a", 3))
    with pytest.raises(StandingError, match="cannot write"):
        file.save()
    assert file.standing.epoch == 3
