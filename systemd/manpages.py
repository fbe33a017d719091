"""Writes the manual pages: ``manpages.py FOLDER``.

One page per program, from what its commands say of themselves: escra(1), escra-agent(8), escra-controller(8).
One page per configuration, from the README's tables and the example: escra-agent.toml(5) and
escra-controller.toml(5).
"""

import inspect
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from escra_agent.daemon import main as agent
from escra_common import __version__
from escra_controller.cli import main as escra
from escra_controller.daemon import main as controller

ROOT = Path(__file__).parents[1]
PROGRAMS = {"escra": (escra, 1), "escra-agent": (agent, 8), "escra-controller": (controller, 8)}
FILES = {
    "escra": {"/run/escra/controller.sock": "The control socket; for root and the group escra."},
    "escra-agent": {
        "/etc/escra/agent.toml": "The configuration; read again by `systemctl reload escra-agent`.",
        "/var/lib/escra-agent": "The original limits of what is managed.",
    },
    "escra-controller": {
        "/etc/escra/controller.toml": "The configuration; read again by `systemctl reload escra-controller`.",
        "/etc/escra/pki": "The CA made by `pki init`.",
        "/var/lib/escra-controller": "Bounds, sizes, audit and history.",
        "/run/escra/controller.sock": "The control socket; for root and the group escra.",
    },
}


def page(name: str) -> str:
    """The manual page of one program, in roff."""
    program, section = PROGRAMS[name]
    title, _, description = _help(program).partition("\n\n")
    others = [f"{other}({number})" for other, (_, number) in PROGRAMS.items() if other != name]
    others += [] if name == "escra" else [f"{name}.toml(5)"]
    context = click.Context(program, info_name=name, **program.context_settings)
    common = _common(context)
    return "\n".join(
        [
            *_head(name, section, title.rstrip(".")),
            *(".SH SYNOPSIS", f".B {_text(name)}", _text(_pieces(context))),
            *([".SH DESCRIPTION", *_prose(description)] if description else []),
            *(".SH OPTIONS", *_terms(_options(context)), ".SS Of most commands", *_terms(common)),
            *(".SH COMMANDS", *_commands(context, common)),
            *_sections(program.epilog or ""),
            *(".SH FILES", *_terms(FILES[name])),
            *(".SH SEE ALSO", _text(", ".join(others))),
            "",
        ]
    )


def configuration_page(daemon: str) -> str:
    """The manual page of ``/etc/escra/DAEMON.toml``, in roff."""
    readme = (ROOT / "README.md").read_text()
    said = readme.partition("\n## Configuration\n")[2].partition("\n`/etc/")[0]
    table = readme.partition(f"\n`/etc/escra/{daemon}.toml`:\n\n")[2].partition("\n\n")[0].replace("`", "")
    rows = re.findall(r"^\| (.+?) \| (.+) \|(.*)\|$", table, re.MULTILINE)
    keys = {
        key: f"{meaning.strip()}.  Default: {default.strip() or 'none'}."
        for key, meaning, default in rows[1:]
    }
    example = (ROOT / "systemd" / f"{daemon}.example.toml").read_text()
    return "\n".join(
        [
            *_head(f"escra-{daemon}.toml", 5, f"configuration of escra-{daemon}"),
            *(".SH SYNOPSIS", _text(f"/etc/escra/{daemon}.toml")),
            *(".SH DESCRIPTION", *_prose(said.replace("`", ""))),
            ".SH KEYS",
            *_terms(keys),
            *(".SH EXAMPLE", ".nf", *map(_text, example.splitlines()), ".fi"),
            *(".SH SEE ALSO", _text(f"escra-{daemon}(8), escra(1)")),
            "",
        ]
    )


def _head(name: str, section: int, title: str) -> list[str]:
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    heading = f'.TH {name.upper()} {section} {day} "Escra {__version__}"'
    return [heading, ".SH NAME", f"{_text(name)} \\- {_text(title)}"]


def _commands(program: click.Context, common: dict[str, str]) -> Iterator[str]:
    for context in _contexts(program):
        command = context.command
        path = " ".join(context.command_path.split()[1:])
        own = {term: text for term, text in _options(context).items() if common.get(term) != text}
        yield from (f".SS {_text(path)} {_text(_pieces(context))}", *_prose(_help(command)))
        yield from (".RS", *_terms(own), ".RE", *_prose(command.epilog or ""))


def _contexts(parent: click.Context) -> Iterator[click.Context]:
    """Of every command, and of those below it."""
    assert isinstance(parent.command, click.Group)
    for word in parent.command.list_commands(parent):
        command = parent.command.get_command(parent, word)
        if command is not None and not command.hidden:
            context = click.Context(command, info_name=word, parent=parent)
            yield context
            if isinstance(command, click.Group):
                yield from _contexts(context)


def _common(program: click.Context) -> dict[str, str]:
    """The options that more than half of the commands have: said once."""
    commands = [_options(context) for context in _contexts(program)]
    counted = Counter(record for options in commands for record in options.items())
    return dict(record for record, count in counted.items() if count > len(commands) / 2)


def _sections(epilog: str) -> Iterator[str]:
    """The epilog's ``Title:`` blocks as sections of the page."""
    for block in re.split(r"\n\n+", epilog.replace("\b\n", "").strip()):
        title, _, rest = block.partition(":")
        yield from (f".SH {title.upper()}", ".nf", *map(_text, inspect.cleandoc(rest).splitlines()), ".fi")


def _options(context: click.Context) -> dict[str, str]:
    parameters = context.command.get_params(context)
    records = (each.get_help_record(context) for each in parameters if isinstance(each, click.Option))
    return dict(record for record in records if record)


def _terms(explained: dict[str, str]) -> Iterator[str]:
    for term, explanation in explained.items():
        yield from (".TP", f"\\fB{_text(term)}\\fR", _text(explanation))


def _prose(text: str) -> Iterator[str]:
    """Paragraphs as click understands them: one that begins with a backspace keeps its lines."""
    for paragraph in re.split(r"\n\n+", text.strip("\n")):
        if paragraph.startswith("\b"):
            yield from (".PP", ".nf", *map(_text, paragraph.splitlines()[1:]), ".fi")
        elif paragraph:
            yield from (".PP", _text(" ".join(paragraph.split())))


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\f")[0]


def _pieces(context: click.Context) -> str:
    return " ".join(context.command.collect_usage_pieces(context))


def _text(text: str) -> str:
    """Escaped, so that roff prints it as it is: hyphens that can be copied, no request at a line's start."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def write(folder: Path) -> None:
    pages = {f"man{section}/{name}.{section}": page(name) for name, (_, section) in PROGRAMS.items()}
    for daemon in ("agent", "controller"):
        pages[f"man5/escra-{daemon}.toml.5"] = configuration_page(daemon)
    for path, text in pages.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
