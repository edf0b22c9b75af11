"""What docstrings and arguments look like in the whole package: read off the source, nothing is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dmps_cli

SOURCE = Path(dmps_cli.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef

NAMES = {"property", "cached_property"}
"""What is read as a value is described by what it is, a noun; so is what a constructor takes."""

NO_VERBS = {"Its", "This", "Always", "Cells", "Weights", "Keys"}


def functions() -> Iterator[tuple[str, Function]]:
    """Every function of the package with its place."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(SOURCE).as_posix()}:{node.lineno} {node.name}", node


def test_a_docstring_begins_with_a_verb() -> None:
    """'Returns ..', 'Raises ..'; help of a command speaks to a person: 'Restore ..', with an example at its end."""
    wrong = []
    for place, function in functions():
        text = ast.get_docstring(function)
        decorators = {node.id for node in function.decorator_list if isinstance(node, ast.Name)}
        is_constructor = function.name in ("__init__", "__new__")
        if not text or is_constructor or decorators & NAMES or "\nExample: dmps " in text:
            continue
        first = re.match(r"[A-Z][a-z]+s\b(?!')", text)
        if first is None or first[0] in NO_VERBS:
            wrong.append(f"{place}: {text.splitlines()[0]}")
    assert wrong == []


def test_no_argument_is_taken_and_thrown_away() -> None:
    """`del x_t` at the beginning of a function says that its signature is wrong."""
    wrong = []
    for place, function in functions():
        arguments = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]}
        deleted = [target for node in ast.walk(function) if isinstance(node, ast.Delete) for target in node.targets]
        wrong += [f"{place}: del {t.id}" for t in deleted if isinstance(t, ast.Name) and t.id in arguments]
    assert wrong == []


def test_every_module_says_what_it_is() -> None:
    undescribed = [
        path.relative_to(SOURCE).as_posix()
        for path in sorted(SOURCE.rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert undescribed == []
