"""Commands and groups as Typer's, but for what they show: flags without a type, complaints that lead further."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand, TyperGroup

from dmps_cli.cli.meant import suggestion
from dmps_cli.text import visible_bytes


def _without_types(parameters: list[Any]) -> list[Any]:
    """Returns parameters of which flags show no type: they take no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


def _options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def _led_further(exc: Any) -> None:
    """Says of an unknown option what is called so here; Typer's guesses by letters stay where nothing is known."""
    context = exc.ctx
    commands = context.find_root().command.commands
    options = {name: _options(command) for name, command in commands.items()}
    options[context.info_name] = _options(context.command)
    if text := suggestion(exc.option_name, context.info_name, options):
        exc.message, exc.possibilities = f"{exc.message}; {text}", None


@contextmanager
def _readable_complaints() -> Iterator[None]:
    """Shows in Typer's complaints the controls that an argument holds, a file's name for one."""
    try:
        yield
    except Exception as exc:
        if hasattr(exc, "format_message") and isinstance(message := getattr(exc, "message", None), str):
            exc.message = visible_bytes(message)  # type: ignore[attr-defined]
            if hasattr(exc, "possibilities") and getattr(exc, "ctx", None) is not None:
                _led_further(exc)
        raise


class Command(TyperCommand):
    """Typer's own, with flags that show no type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns those of Typer."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """Typer's own; complaints come from the first of these or, of a command's options, from the second."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns those of Typer."""
        return _without_types(super().get_params(ctx))

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Does as Typer, its complaints made readable."""
        with _readable_complaints():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Does as Typer, its complaints made readable."""
        with _readable_complaints():
            return super().invoke(ctx)
