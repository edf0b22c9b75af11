"""Options in groups: a command's dataclasses become its options, panels and completion."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer

from dmps_cli.checks import Rule, option_name, typed
from dmps_cli.cli.completion import COMPLETE, complete_words

PANELS = {
    "OperatorOptions": "Operator (each task takes some of these, see `dmps tasks`)",
    "SamplingOptions": "Sampling",
    "SweepOptions": "Sampling (numbers with commas between: every combination)",
    "ComputeOptions": "Machine and prior",
    "OutputFlags": "Output",
    "InputOptions": "Input files",
    "ReadingOptions": "Input files",
    "WritingOptions": "Output",
    "PictureOptions": "Photographs",
    "FolderOptions": "Output",
    "TrainingOptions": "Options",
    "ScoringOptions": "What is compared",
}


Rules = dict[str, tuple[str, Rule[Any], Callable[[str], Any]]]
"""Parameter -> how its option is written, its rule, what a typed text is before it."""


def command_options(command: Callable[..., None]) -> Callable[..., None]:
    """Spreads each parameter of a command that is a dataclass into one option per field.

    The command is called with the dataclasses filled in, so that groups of options keep one definition. What has a rule
    (`checks.option`, or a Rule in a parameter's Annotated) comes from Typer as it was typed, so that the rule alone
    says what is wrong with it.
    """
    hints = get_type_hints(command, include_extras=True)
    rules: Rules = {}
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _group_parameters(groups[name], rules)
        else:
            hint = _as_typed(name, hints[name], rules)
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, (option, rule, meant) in rules.items():
            if values[name] is not None:
                values[name] = rule(option, meant(values[name]))
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    del run.__wrapped__  # inspect would otherwise look through to the grouped signature
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def reflowed(text: str) -> str:
    """Returns each paragraph on one line: the help is wrapped where the terminal ends, not where the source does."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _as_typed(name: str, hint: Any, rules: Rules) -> Any:
    """Returns the hint of a text in place of one with a rule, which goes to the rules."""
    parts = getattr(hint, "__metadata__", ())
    for rule in (part for part in parts if isinstance(part, Rule)):
        option = next(part for part in parts if not isinstance(part, Rule))
        is_text = str in (hint.__origin__, *get_args(hint.__origin__))
        rules[name] = option_name(name, option.param_decls or ()), rule, str if is_text else typed
        return Annotated[str | None, option]
    return hint


def _group_parameters(group: Any, rules: Rules) -> list[inspect.Parameter]:
    """Returns one parameter per field, in the group's own panel of the help."""
    hints = get_type_hints(group, include_extras=True)

    def parameter(field: Field[Any]) -> inspect.Parameter:
        hint = hints[field.name]
        if field.metadata:  # described below the command line, by checks.option
            said = field.metadata
            names = said["names"] or ([f"--{field.name.replace('_', '-')}"] if hint == bool | None else [])
            complete = COMPLETE.get(said["complete"]) or complete_words(said["metavar"])
            option = typer.Option(*names, help=said["help"], metavar=said["metavar"], autocompletion=complete)
            is_switch = bool in (hint, *get_args(hint))  # typed without a value
            said_rule = () if said["rule"] is None or is_switch else (said["rule"],)
            hint = _as_typed(field.name, Annotated[(hint, option, *said_rule)], rules)
        option = copy.copy(hint.__metadata__[0])  # shared with commands that take it outside this group
        option.rich_help_panel = PANELS[group.__name__]
        hint = Annotated[hint.__origin__, option]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)

    return [parameter(field) for field in fields(group)]
