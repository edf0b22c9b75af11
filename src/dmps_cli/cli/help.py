"""`dmps help`: what --help says, for who types it first."""

from __future__ import annotations

from typing import Annotated

import typer


def help_of(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="A command, `restore` or `models show`.")
    ] = None,
) -> None:
    """Show the help of a command.

    Example: dmps help restore
    """
    root = context.find_root()
    root.command.main([*(command or ()), "--help"], prog_name=root.command_path, standalone_mode=False)
