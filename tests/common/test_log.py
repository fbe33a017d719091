"""Where log records go and how they read; journald is played by a socket (the real one: target host)."""

import ast
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from escra_common import journal, log
from escra_common.errors import ConfigError

ROOT = Path(__file__).parents[2]

CHANGE = (
    'log.info("limit changed", kind="limit_changed", app="shop", container="web", host="h1",'
    ' old=0.5, new=1.25, unit="cores", reason="throttled")'
)
SENTENCE = "shop/web on h1: 0.50 -> 1.25 cores (throttled)"


def program(path: str, statements: str, level: str = "info") -> list[str]:
    """A program that logs to the journal socket at PATH, if its stderr is a journal's."""
    code = f"""
import logging, structlog
from escra_common.log import configure
log = structlog.get_logger()
configure("escra-test", {level!r}, journal_socket={path!r})
{statements}
"""
    return [sys.executable, "-c", code]


class FakeJournal:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def log(self, statements: str, level: str = "info") -> None:
        """Run a program whose stderr is this journal's stream; it must exit cleanly."""
        with open(self.path + ".stderr", "w+") as stderr:
            stat = os.fstat(stderr.fileno())
            env = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
            command = program(self.path, statements, level)
            done = subprocess.run(command, stderr=stderr, env=env, timeout=30)
            stderr.seek(0)
            assert (done.returncode, stderr.read()) == (0, "")

    def records(self) -> list[dict[str, str]]:
        records = []
        while True:
            try:
                records.append(parse(self.socket.recv(1 << 20)))
            except BlockingIOError:
                return records


def parse(datagram: bytes) -> dict[str, str]:
    """The protocol as journald reads it."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[FakeJournal]:
    fake = FakeJournal(tmp_path / "journal")
    yield fake
    fake.socket.close()


# ---- journald ----------------------------------------------------------------------


def test_a_decision_is_a_sentence_and_fields(journald: FakeJournal) -> None:
    journald.log(CHANGE)
    (record,) = journald.records()
    assert record.pop("CODE_FILE") == "<string>"
    assert int(record.pop("CODE_LINE")) > 0
    assert record == {
        "MESSAGE": SENTENCE,
        "MESSAGE_ID": log.MESSAGE_IDS["limit_changed"],
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "escra-test",
        "CODE_FUNC": "<module>",
        "ESCRA_EVENT": "limit changed",
        "ESCRA_KIND": "limit_changed",
        "ESCRA_APP": "shop",
        "ESCRA_CONTAINER": "web",
        "ESCRA_HOST": "h1",
        "ESCRA_OLD": "0.5",
        "ESCRA_NEW": "1.25",
        "ESCRA_UNIT": "cores",
        "ESCRA_REASON": "throttled",
    }


def test_values_with_newlines_cannot_forge_fields(journald: FakeJournal) -> None:
    journald.log(r'log.warning("hello", app="x\nPRIORITY=0\nMESSAGE=forged")')
    (record,) = journald.records()
    assert record["ESCRA_APP"] == "x\nPRIORITY=0\nMESSAGE=forged"
    assert record["PRIORITY"] == "4"


def test_bytes_that_are_no_text_and_names_that_are_no_field_names_pass(journald: FakeJournal) -> None:
    journald.log(r'log.info("hello", app="\udcff", **{"größe-x": 1})')
    (record,) = journald.records()
    assert record["ESCRA_APP"] == r"\udcff"
    assert record["ESCRA_GR_SSE_X"] == "1"


def test_a_value_that_is_too_long_is_cut(journald: FakeJournal) -> None:
    journald.log('log.info("x" * 10**6, app="y" * 10**6)')
    (record,) = journald.records()
    assert record["ESCRA_APP"] == "y" * journal.MAX_VALUE_BYTES + "... (cut)"
    assert record["MESSAGE"].endswith("... (cut)")


def test_errors_bring_their_traceback(journald: FakeJournal) -> None:
    journald.log('try:\n  1/0\nexcept ZeroDivisionError:\n  log.exception("cannot divide", host="h1")')
    (record,) = journald.records()
    assert record["PRIORITY"] == "3"
    assert record["MESSAGE"].startswith("h1: cannot divide\nTraceback")
    assert record["MESSAGE"].endswith("ZeroDivisionError: division by zero")


def test_libraries_are_heard_from_warning_on(journald: FakeJournal) -> None:
    journald.log(
        'logging.getLogger("asyncio").warning("slow %s", "callback"); logging.getLogger("x").info("no")'
    )
    (record,) = journald.records()
    assert record["MESSAGE"] == "slow callback logger=asyncio"
    assert record["PRIORITY"] == "4"


@pytest.mark.parametrize(("level", "heard"), [("debug", 2), ("info", 1), ("warning", 0)])
def test_the_level_filters(journald: FakeJournal, level: str, heard: int) -> None:
    journald.log('log.debug("d"); log.info("i")', level)
    assert len(journald.records()) == heard


def test_a_stuck_journal_delays_nothing_and_the_loss_is_told(tmp_path: Path) -> None:
    fake = FakeJournal(tmp_path / "journal")
    sender = journal.Journal(fake.path)
    record = journal.encode({"MESSAGE": "x"})
    for _ in range(100_000):
        began = time.monotonic()
        sender.send(record)
        if sender.dropped:
            break
    assert sender.dropped == 1, "the journal's queue never fills"
    assert time.monotonic() - began < 0.05
    fake.records()
    sender.send(record)
    assert fake.records() == [{"MESSAGE": "x", "ESCRA_LOG_DROPPED": "1"}]
    fake.socket.close()
    sender.close()


def test_a_journal_that_restarts_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fake = FakeJournal(path)
    sender = journal.Journal(fake.path)
    fake.socket.close()
    path.unlink()
    sender.send(journal.encode({"MESSAGE": "lost"}))
    fake = FakeJournal(path)
    sender.send(journal.encode({"MESSAGE": "back"}))
    assert fake.records() == [{"MESSAGE": "back", "ESCRA_LOG_DROPPED": "1"}]
    fake.socket.close()
    sender.close()


# ---- terminal and pipe -------------------------------------------------------------


def on_terminal(command: Sequence[str], **env: str) -> str:
    """What a person sees: COMMAND's stderr is a terminal of its own."""
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "JOURNAL_STREAM")}
    with subprocess.Popen(command, stderr=theirs, env={**clean, "TERM": "xterm", **env}) as process:
        process.wait(30)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 0)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # EIO: the other side is closed and all is read
            break
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_the_sentence() -> None:
    shown = on_terminal(program("/nowhere", CHANGE))
    assert re.fullmatch(r"\d\d:\d\d:\d\d info     " + re.escape(SENTENCE) + "\n", shown)


def test_colour_is_for_trouble_and_can_be_refused() -> None:
    command = program("/nowhere", 'log.error("no")')
    assert "\x1b[31merror" in on_terminal(command)
    assert "\x1b" not in on_terminal(command, NO_COLOR="1")
    assert "\x1b" not in on_terminal(command, TERM="dumb")


def test_a_label_cannot_steer_the_terminal() -> None:
    shown = on_terminal(program("/nowhere", r'log.info("hello", app="\x1b]0;owned\x07")'))
    assert "\x1b" not in shown
    assert r"\x1b]0;owned\x07" in shown


def test_anything_else_gets_json_lines() -> None:
    done = subprocess.run(
        program("/nowhere", CHANGE + '\nlog.info("two\\nlines", path=object)'),
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert first["message"] == SENTENCE
    assert (first["program"], first["level"], first["old"], first["new"]) == ("escra-test", "info", 0.5, 1.25)
    assert re.match(r"\d{4}-\d\d-\d\dT", first["timestamp"])
    assert second["event"] == "two\nlines"


def test_a_reader_that_went_away_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = program("/nowhere", CHANGE + "\n" + CHANGE + '\nprint("alive")')
    done = subprocess.run(command, stderr=writer, stdout=subprocess.PIPE, text=True, timeout=30)
    os.close(writer)
    assert done.stdout == "alive\n"


def test_an_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'loud' is unknown; use one of debug, info"):
        log.configure("escra-test", "loud")


# ---- sentences ---------------------------------------------------------------------


CPU = {"old": 0.2, "new": 1.0, "unit": "cores"}
MEMORY = {"old": None, "new": 3 << 30, "unit": "bytes"}


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"event": "started"}, "started"),
        ({"event": "agent left", "host": "h1", "reason": "silent"}, "h1: agent left (silent)"),
        (
            {"event": "limit changed", "kind": "limit_changed", "app": "shop", "container": "db", **MEMORY},
            "shop/db: max -> 3.0GiB",
        ),
        (
            {"event": "drift repaired", "container": "web", "host": "h1", "reason": "foreign write", **CPU},
            "web on h1: drift repaired, 0.20 -> 1.00 cores (foreign write)",
        ),
        ({"event": "originals restored", "count": 3}, "originals restored count=3"),
    ],
)
def test_sentences(event: dict[str, object], sentence: str) -> None:
    assert log.message(event) == sentence


def test_message_ids_are_stable_identifiers() -> None:
    ids = list(log.MESSAGE_IDS.values())
    assert all(re.fullmatch(r"[0-9a-f]{32}", value) for value in ids)
    assert len(set(ids)) == len(ids)


def kinds_logged() -> Iterator[tuple[str, str]]:
    """Every ``kind="..."`` in a call of the programs, with where it is."""
    for package in ("escra_common", "escra_agent", "escra_controller"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in log.LEVELS
                ):
                    for keyword in node.keywords:
                        if keyword.arg == "kind" and isinstance(keyword.value, ast.Constant):
                            yield str(keyword.value.value), f"{path.name}:{node.lineno}"


def test_every_kind_that_is_logged_has_an_id() -> None:
    assert [(kind, where) for kind, where in kinds_logged() if kind not in log.MESSAGE_IDS] == []
