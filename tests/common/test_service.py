"""The manager's protocol against a fake manager: what a real one does is proved on the target host."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escra_common import service
from escra_common.errors import ConfigError


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

        self._pending: list[str] = []

    def heard(self) -> list[str]:
        """What came and was not asked for yet."""
        while True:
            try:
                self._pending.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                lines, self._pending = self._pending, []
                return lines

    def wait_for(self, start: str, seconds: float = 10.0) -> None:
        """Wait for a datagram that starts so; those before it are forgotten."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = self.heard()
            for index, line in enumerate(lines):
                if line.startswith(start):
                    self._pending = lines[index + 1 :]
                    return
            time.sleep(0.01)
        raise AssertionError(f"no {start} within {seconds} s")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    manager = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    yield manager
    manager.socket.close()


# ---- notify ------------------------------------------------------------------------


def test_assignments_go_out_in_one_datagram(manager: Manager) -> None:
    assert service.notify("READY=1", "STATUS=fine")
    assert manager.heard() == ["READY=1\nSTATUS=fine"]


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"escra-test-{os.getpid()}"
    manager = Manager("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    service.ready()
    assert manager.heard() == ["READY=1"]
    manager.socket.close()


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not service.notify("READY=1")
    service.ready()
    service.reloading()
    service.stopping()


def test_a_manager_that_went_away_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not service.notify("READY=1")


def test_a_busy_manager_does_not_hold_us_up(manager: Manager) -> None:
    began = time.monotonic()
    while service.notify("WATCHDOG=1"):
        assert time.monotonic() - began < 10, "the manager's queue never fills"
    began = time.monotonic()
    service.notify("WATCHDOG=1")
    assert time.monotonic() - began < 0.05


def test_a_change_of_state_waits_for_a_busy_manager_but_not_for_ever(manager: Manager) -> None:
    while service.notify("WATCHDOG=1"):
        pass
    began = time.monotonic()
    service.ready()
    assert 0.9 < time.monotonic() - began < 2


def test_reloading_carries_the_time_newer_managers_insist_on(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    service.reloading()
    (line,) = manager.heard()
    first, second = line.split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_status_is_sent_when_it_changes_and_only_then(manager: Manager) -> None:
    status = service.Status()
    for text in ("2 containers", "2 containers", "3 containers\nREADY=1"):
        status(text)
    assert manager.heard() == ["STATUS=2 containers", "STATUS=3 containers READY=1"]


def test_a_status_that_was_lost_is_sent_again(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    status = service.Status()
    with monkeypatch.context() as without:
        without.delenv("NOTIFY_SOCKET")
        status("up")
    status("up")
    assert manager.heard() == ["STATUS=up"]


# ---- watchdog ----------------------------------------------------------------------


def test_the_watchdog_is_fed_at_half_its_limit(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    watchdog = service.Watchdog()
    for tick in range(11):
        watchdog.ping(100 + tick / 10)
    assert manager.heard() == ["WATCHDOG=1"] * 3  # at 0, 0.5 and 1.0 s


@pytest.mark.parametrize(
    ("usec", "pid"), [("1000000", "1"), ("", None), ("soon", None), ("0", None)], ids=str
)
def test_a_watchdog_that_is_not_ours_is_left_alone(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    service.Watchdog().ping(1.0)
    assert manager.heard() == []


# ---- sockets and credentials -------------------------------------------------------

ADOPT = textwrap.dedent("""
    import os
    from escra_common import service
    os.environ["LISTEN_PID"] = str(os.getpid())
    for name, adopted in service.listen_sockets().items():
        print(name, adopted.getsockname(), adopted.get_inheritable())
""")


def adopt(names: str, *listeners: socket.socket) -> subprocess.CompletedProcess[str]:
    """Run a process that gets the listeners as systemd would pass them, from descriptor 3 on."""
    code = "import os, sys\n"
    code += "held = [os.dup(int(fd)) for fd in sys.argv[1:]]\n"
    code += "[os.dup2(fd, 3 + i) for i, fd in enumerate(held)]\n" + ADOPT
    fds = [listener.fileno() for listener in listeners]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, fds)],
        env={**os.environ, "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names},
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_inherited_sockets_are_adopted_by_name(tmp_path: Path) -> None:
    with socket.socket() as agents, socket.socket(socket.AF_UNIX) as control:
        agents.bind(("127.0.0.1", 0))
        control.bind(str(tmp_path / "control"))
        done = adopt("agents:control", agents, control)
        assert done.stdout.splitlines() == [
            f"agents {agents.getsockname()} False",
            f"control {control.getsockname()} False",
        ], done.stderr


def test_two_sockets_with_one_name_are_refused_with_the_cure() -> None:
    with socket.socket() as one, socket.socket() as two:
        done = adopt("agents:agents", one, two)
    assert done.returncode != 0
    assert "ConfigError" in done.stderr
    assert "FileDescriptorName=" in done.stderr


def test_sockets_meant_for_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert service.listen_sockets() == {}


def test_a_count_that_does_not_match_the_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_FDNAMES", "agents")
    with pytest.raises(ConfigError, match="passed 2 sockets"):
        service.listen_sockets()


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert service.credential("agent.key") is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert service.credential("agent.key") is None
    (tmp_path / "agent.key").write_text("secret")
    assert service.credential("agent.key") == tmp_path / "agent.key"


# ---- signals, in a process of their own --------------------------------------------

DAEMON = textwrap.dedent("""
    import asyncio, sys, time
    from escra_common import service

    def reload():
        print("reload", flush=True)
        if "bad" in sys.argv:
            raise ValueError("bad config")

    async def work():
        try:
            while True:
                await asyncio.sleep(3600)
        finally:
            print("cleaning", flush=True)
            if "slow" in sys.argv:
                await asyncio.sleep(1)
            if "stuck" in sys.argv:
                time.sleep(60)
            print("clean", flush=True)

    async def main():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
            tasks.create_task(service.on_signals(reload))
            await asyncio.sleep(0.05)
            service.ready()
            if "broken" in sys.argv:
                raise RuntimeError("broken")

    service.run(main)
    print("end", flush=True)
""")


class Daemon:
    def __init__(self, manager: Manager, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.manager = manager

    def __enter__(self) -> "Daemon":
        self.manager.wait_for("READY=1")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_for_line(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == line

    def end(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.split(), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_tasks_and_the_process_cleanly(manager: Manager, number: signal.Signals) -> None:
    with Daemon(manager) as daemon:
        daemon.process.send_signal(number)
        assert daemon.end() == (0, ["cleaning", "clean", "end"], "")
        assert manager.heard() == ["STOPPING=1"]


def test_hang_up_reloads_between_reloading_and_ready(manager: Manager) -> None:
    with Daemon(manager) as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        daemon.wait_for_line("reload")
        manager.wait_for("READY=1")
        daemon.process.terminate()
        assert daemon.end()[0] == 0


def test_a_reload_that_fails_still_ends_and_stops_nothing(manager: Manager) -> None:
    with Daemon(manager, "bad") as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1")
        daemon.process.terminate()
        code, out, err = daemon.end()
        assert (code, out[-1]) == (0, "end")
        assert "bad config" in err


def test_further_signals_do_not_cut_the_clean_up_short(manager: Manager) -> None:
    with Daemon(manager, "slow") as daemon:
        daemon.process.terminate()
        daemon.wait_for_line("cleaning")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.process.terminate()
        assert daemon.end() == (0, ["clean", "end"], "")


def test_a_second_interrupt_ends_even_a_stuck_clean_up(manager: Manager) -> None:
    with Daemon(manager, "stuck") as daemon:
        daemon.process.send_signal(signal.SIGINT)
        daemon.wait_for_line("cleaning")
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.end()[0] == -signal.SIGINT


def test_other_failures_are_not_mistaken_for_a_shutdown(manager: Manager) -> None:
    with Daemon(manager, "broken") as daemon:
        code, out, err = daemon.end()
    assert code == 1
    assert out == ["cleaning", "clean"]
    assert "RuntimeError: broken" in err


def test_the_watchdogs_signal_leaves_every_stack(manager: Manager) -> None:
    with Daemon(manager) as daemon:
        daemon.process.send_signal(signal.SIGABRT)
        code, _, err = daemon.end()
    assert code == -signal.SIGABRT
    assert "Current thread" in err
