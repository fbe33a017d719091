"""The process that turns the OOM killer on again when the agent no longer can (cgroup v1, K11).

While the OOM killer of a cgroup is off, a task at its limit waits until somebody acts.  Should the
agent be killed, stopped or stuck, nobody would, and the task hung for ever.  So this process,
started by the agent (guarding.py), reads from a pipe, line by line:

    arm PATH       this memory.oom_control has the OOM killer off
    disarm PATH    not any more
    (empty)        the agent is alive

At the pipe's end, and after each second without a line, it puts every armed one back to 0.  An agent
that was only slow finds that, and arms again.

Standard library only, and little of that: it is there for the time when everything else fails.
"""

import os
import select
import signal

GUARD_S = 1.0
# Whatever ends the agent may be sent to its whole group of processes; only the end of the pipe counts.
_IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGUSR1", "SIGUSR2", "SIGPIPE")


def main(pipe: int = 0) -> None:
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    armed: set[str] = set()
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], GUARD_S)
        data = os.read(pipe, 1 << 16) if ready else b""
        if not data:
            disarm(armed)
        if ready and not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            obey(os.fsdecode(line), armed)


def obey(line: str, armed: set[str]) -> None:
    word, _, path = line.partition(" ")
    if word == "arm":
        armed.add(path)
    elif word == "disarm":
        armed.discard(path)


def disarm(paths: set[str]) -> None:
    for path in paths:
        for folder, _, _ in os.walk(os.path.dirname(path)):
            turn_killer_on(folder)


def turn_killer_on(folder: str) -> None:
    """Cgroups made inside an armed one were born armed, so this is for each of them, too."""
    try:
        fd = os.open(f"{folder}/memory.oom_control", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # The cgroup is gone, and its tasks with it.
    try:
        os.write(fd, b"0")
    except OSError:
        pass
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
