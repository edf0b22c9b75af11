"""Options in groups: a command's dataclasses become its options, panels and completion."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from dmps_cli.cli.options import COMPLETIONS
from dmps_cli.errors import DmpsError

PANELS = {
    "OperatorOptions": "Operator (each task takes some of these, see `dmps tasks`)",
    "SamplingFlags": "Sampling",
    "SweepFlags": "Sampling (numbers with commas between: every combination)",
    "ComputeFlags": "Machine and prior",
    "OutputFlags": "Output",
    "PictureFlags": "Photographs",
    "FolderFlags": "Output",
}


def command_options(command: Callable[..., None]) -> Callable[..., None]:
    """Spreads each parameter of a command that is a dataclass into one option per field.

    The command is called with the dataclasses filled in, so that groups of options keep one definition.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _group_parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    del run.__wrapped__  # inspect would otherwise look through to the grouped signature
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def reflowed(text: str) -> str:
    """Each paragraph on one line: the help is wrapped where the terminal ends, not where the source does."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _group_parameters(group: Any) -> list[inspect.Parameter]:
    """One parameter per field, in the group's own panel of the help."""
    hints = get_type_hints(group, include_extras=True)

    def parameter(field: Field[Any]) -> inspect.Parameter:
        hint = hints[field.name]
        if field.metadata:  # a group that lives below the command line describes its options there
            names = [field.metadata["option"]] if "option" in field.metadata else []
            if hint == bool | None:
                names = [f"--{field.name.replace('_', '-')}"]  # without its --no- form
            help, metavar = field.metadata["help"], field.metadata["metavar"]
            completion = COMPLETIONS.get(field.metadata.get("complete", ""))
            hint = Annotated[hint, typer.Option(*names, help=help, metavar=metavar, autocompletion=completion)]
        option = copy.copy(hint.__metadata__[0])  # shared with commands that take it outside this group
        option.rich_help_panel = PANELS[group.__name__]
        hint = Annotated[hint.__origin__, option]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)

    return [parameter(field) for field in fields(group)]


def complete(choices: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Shell completion from a table's names."""

    def matching(incomplete: str) -> list[str]:
        try:
            return [name for name in choices() if name.startswith(incomplete)]
        except DmpsError:  # a table that cannot be read is said when the command runs
            return []

    return matching
