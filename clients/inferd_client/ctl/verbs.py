"""A group of verbs whose modules are imported when they are called."""

from collections.abc import Mapping
from importlib import import_module

import click


class VerbGroup(click.Group):
    """`verbs`: each one's name, in the order of the help, to its module in `commands`."""

    def __init__(self, *args: object, verbs: Mapping[str, str], **extra: object) -> None:
        super().__init__(*args, **extra)  # type: ignore[arg-type]
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self._verbs.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f"{__package__}.commands.{module}").command
        return command
