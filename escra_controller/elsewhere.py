"""A group whose commands are loaded one at a time: a table does not wait for what makes reports."""

import importlib
from typing import Any

import click


class Elsewhere(click.Group):
    """``elsewhere`` says, by the command's name, which module has it under that name."""

    def __init__(self, *arguments: Any, elsewhere: dict[str, str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._elsewhere = elsewhere

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*self.commands, *self._elsewhere})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in self._elsewhere and name not in self.commands:
            self.add_command(getattr(importlib.import_module(self._elsewhere[name]), name))
        return super().get_command(context, name)
