"""What the help of every command has in common."""

SETTINGS = {"help_option_names": ["-h", "--help"]}
DAEMON_EXIT_STATUS = "Exit status: 0 ok, 1 failed, 2 usage, 78 bad configuration."


def examples(*lines: str, more: str = "") -> str:
    """What help ends with: lines to type, and then ``more``."""
    listed = "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
    return f"{listed}\n\n{more}".rstrip()
