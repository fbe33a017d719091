"""What agent and controller share: units, messages, framing, sessions, and the service glue."""

__version__ = "0.1.0"
