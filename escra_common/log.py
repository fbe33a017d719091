"""Logging, configured once per program: journald's native protocol, a terminal, or JSON lines.

One record per decision or transition, never one per sample::

    log.info("limit changed", kind="limit_changed", app="shop", container="web", host="h1",
             old=0.5, new=1.25, unit="cores", reason="throttled")

reads ``shop/web on h1: 0.50 -> 1.25 cores (throttled)`` in the journal, and every keyword is
a field of its own there (ESCRA_APP, ESCRA_OLD, ...).  ``unit`` is "cores" or "bytes"; None is
"no limit".
"""

import json
import logging
import os
import sys
from typing import Any

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.typing import EventDict, WrappedLogger

from escra_common.errors import ConfigError
from escra_common.journal import JOURNAL_SOCKET, Journal, connected_to_stderr, encode, field_name
from escra_common.units import format_bytes

# `journalctl MESSAGE_ID=...` is a report about one kind of event: these never change.
MESSAGE_IDS = {
    "limit_changed": "d4c74fadf0f34142a003c631c38b0bb1",
    "limit_observed": "a4813baa9bca4733abb9a1a193ea842e",
    "drift_repaired": "6f595a9141df485b83a2552568b285fd",
    "agent_joined": "20c64c078efc4863aec9db3b530f9acf",
    "agent_left": "3bf1f4a658714b7792175762e150d5b1",
    "container_appeared": "ed5022c1bdcc4678b6d19e273f05c35e",
    "container_gone": "194e7a0b99654bc3b7ff7a6540b6624c",
    "container_released": "5d4e3c8797d94a888642e5e26b6c5421",
    "write_failed": "e29defdcf70c46c28ba9b9919dc2dfaa",
    "memory_denied": "12e314a02bb34fdd91d231a21d8fa908",
    "oom_killed": "7562523666024e9a83aa62c16834c10d",
    "bad_peer": "698d2dd1d8c447df914d6a780e5d96ee",
    "order_refused": "4cf3ba0e0b6e4f0b9d2a5f0f8a7c1f63",
    "config_reloaded": "995a6e96fdbd4e74a909f38ddfb264c9",
    "config_refused": "391097317afb42b1965da404f9e25935",
    "originals_restored": "d44fd6411dd744c296f637217afa9903",
    "lease_over": "f3fa96b5e7744a6bad782f4a6b29f07d",
    "state_lost": "b70f0ed15fb340e4825cce3297f808ab",
    "standby": "74c2ebf47ac947ac9d0a6a381c56c222",
    "promoted": "477f98d0d44d42cc93d96a6dea4a421e",
    "leading": "a19ee1044afd4ac3876e15bac05df68e",
    "store": "478ea23706ec4ad39885815af1c728de",
    "certificate_ends": "ed4adb52f14643e8b318badc3a8779e4",
    "certificate_renewed": "c9387ee3fe714160b80bc6a31c0a59c0",
    "certificate_refused": "a63756d2f0054d3597da39566580a6b2",
    "metrics_refused": "bd67251356074a52bcb50442a7aad53d",
}

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# syslog's numbers for them
_PRIORITY = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}
_COLOUR = {"warning": "33", "error": "31", "critical": "31"}

# Told by the sentence of message(), or not for people.
_IN_SENTENCE = {"event", "level", "kind", "app", "container", "host", "old", "new", "unit", "reason"}
_TOLD = _IN_SENTENCE | {"timestamp", "exception", "pathname", "lineno", "func_name"}


def configure(program: str, level: str = "info", *, journal_socket: str = JOURNAL_SOCKET) -> None:
    """Set up structlog, and send there what libraries log through the standard library.

    ``program`` is what journalctl -t finds.  Raises ConfigError for an unknown level.
    """
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r} is unknown; use one of {', '.join(LEVELS)}")
    processors: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    emit: Any = _print_line
    if connected_to_stderr():
        emit = Journal(journal_socket).send
        processors += [_callsite(), _JournalRecord(program)]
    elif sys.stderr.isatty():
        colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        processors += [structlog.processors.TimeStamper("%H:%M:%S", utc=False), _TerminalLine(colour)]
    else:
        processors += [structlog.processors.TimeStamper("iso"), _JsonLine(program)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Output(emit),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


def message(event: EventDict) -> str:
    """The sentence for people; also for events that name no container, host or numbers."""
    who = "/".join(str(event[key]) for key in ("app", "container") if event.get(key))
    where = " on ".join(part for part in (who, event.get("host")) if part)
    what = str(event["event"])
    if "old" in event and "new" in event:
        change = f"{_amount(event, 'old')} -> {_amount(event, 'new')}"
        if event.get("unit") == "cores":
            change += " cores"
        what = change if event.get("kind") == "limit_changed" else f"{what}, {change}"
    text = f"{where}: {what}" if where else what
    if event.get("reason"):
        text += f" ({event['reason']})"
    text = " ".join([text, *[f"{key}={event[key]}" for key in event if key not in _TOLD]])
    return f"{text}\n{event['exception']}" if "exception" in event else text


def _amount(event: EventDict, key: str) -> str:
    value = event[key]
    if value is None:
        return "max"
    if event.get("unit") == "bytes":
        return format_bytes(value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


class _JournalRecord:
    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> bytes:
        fields = {
            "MESSAGE": message(event),
            "PRIORITY": _PRIORITY[event.pop("level")],
            "SYSLOG_IDENTIFIER": self._program,
            "CODE_FILE": str(event.pop("pathname")),
            "CODE_LINE": str(event.pop("lineno")),
            "CODE_FUNC": str(event.pop("func_name")),
        }
        if (kind := event.get("kind")) in MESSAGE_IDS:
            fields["MESSAGE_ID"] = MESSAGE_IDS[kind]
        event.pop("exception", None)  # already in MESSAGE
        for key, value in event.items():
            fields[field_name(key)] = "max" if value is None else str(value)
        return encode(fields)


class _TerminalLine:
    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> str:
        level, time = event["level"], event["timestamp"]
        # Labels come from whoever starts containers: no escape sequence may reach the terminal.
        text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message(event))
        tag = f"{level:<8}"
        if self._colour and level in _COLOUR:
            tag = f"\x1b[{_COLOUR[level]}m{tag}\x1b[0m"
        return f"{time} {tag} {text}"


# ``json.dumps`` makes a new one for each line.
_JSON = json.JSONEncoder(default=str)


class _JsonLine:
    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> str:
        text = message({k: v for k, v in event.items() if k != "exception"})
        return _JSON.encode({"program": self._program, "message": text, **event})


def _callsite() -> CallsiteParameterAdder:
    wanted = {CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME}
    return CallsiteParameterAdder(wanted, additional_ignores=[__name__])


def _print_line(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # The terminal or the reader went away; that is no reason for a daemon to end.
        return


class _Output:
    """What structlog calls at the end, under the name of the level."""

    def __init__(self, emit: Any) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = emit


class _FromLibraries(logging.Handler):
    """Sends on what asyncio and other libraries have to say."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno // 10 * 10, 10), 50)
        structlog.get_logger().log(level, record.getMessage(), logger=record.name, exc_info=record.exc_info)
