"""A real terminal for a program on a full screen: tmux, on a server of its own."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE_S = 20.0


def whats_missing() -> str:
    """Why there is no terminal here; empty when there is."""
    return "" if shutil.which("tmux") else "tmux is not installed (apt install tmux)"


class Terminal:
    """One window with a shell; ``socket`` is where its tmux server listens."""

    def __init__(self, socket: Path, width: int, height: int, environment: Mapping[str, str]) -> None:
        self._socket = socket
        plain = [
            "env",
            "-u",
            "NO_COLOR",
            "-u",
            "TMUX",
            "-u",
            "COLUMNS",
            "-u",
            "LINES",
            "LC_ALL=C.UTF-8",
            "PS1=ready> ",
        ]
        settings = [f"{name}={value}" for name, value in environment.items()]
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("new-session", "-d", *size, *plain, *settings, "sh")
        self.wait_for("ready>")

    def type(self, *keys: str) -> None:
        """Keys by their tmux names: ``Enter``, ``Escape``, ``Up``, ``q``."""
        self._tmux("send-keys", *keys)

    def run(self, command: Sequence[str]) -> None:
        self.type(" ".join(command), "Enter")

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self, *, styled: bool = False) -> list[str]:
        """The lines that a person sees; ``styled`` with the escapes of colours and weights."""
        text = self._tmux("capture-pane", "-p", *(["-e"] if styled else []))
        return text.split("\n")[:-1]

    def wait_for(self, text: str) -> list[str]:
        return self.wait_until(lambda lines: any(text in line for line in lines), f"{text!r} to be seen")

    def wait_until(self, met: Callable[[list[str]], bool], what: str) -> list[str]:
        """The screen on which it is so; raises TimeoutError with the one that was last seen."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            lines = self.screen()
            if met(lines):
                return lines
            time.sleep(0.1)
        seen = "\n".join(lines)
        raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}; seen:\n{seen}")

    def end(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


@contextlib.contextmanager
def terminal(
    folder: Path, width: int = 80, height: int = 24, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Ended with all that runs in it."""
    window = Terminal(folder / "tmux.sock", width, height, environment or {})
    try:
        yield window
    finally:
        window.end()
