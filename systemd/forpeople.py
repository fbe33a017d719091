"""Writes manual pages and completions: ``forpeople.py MANDIR [SHELL COMMAND FILE]...``.

All in one process: to start Python for every command and shell would take several times as long.
"""

import sys
from pathlib import Path

from click.shell_completion import get_completion_class
from manpages import PROGRAMS, write


def completion(shell: str, name: str) -> str:
    """What ``shell`` reads to complete ``name``; the command itself prints the same when asked for it."""
    program, _ = PROGRAMS[name]
    of_shell = get_completion_class(shell)
    assert of_shell is not None, shell
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    return of_shell(program, {}, name, variable).source()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    for shell, name, file in zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3], strict=True):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(completion(shell, name))
