"""Puts a mistake into a module that is loaded, wherever what it holds has been taken to already."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tests.mutants.changes import Change

SHARED = 256
"""Whole numbers up to here are one object each, whatever they stand for."""


def put_in_place(change: Change, path: str) -> None:
    """Gives every function of the module the code that it has with the change; of constants, the new value."""
    codes = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(change.tree, path, "exec"))}
    functions = [function for function in _functions() if function.__code__.co_filename == path]
    assert functions, f"no function of {path} is loaded"
    for function in functions:
        function.__code__ = codes[function.__code__.co_qualname, function.__code__.co_firstlineno]
    module = next(module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == path)
    for statement in change.tree.body:
        if statement.lineno <= change.line <= (statement.end_lineno or 0):
            _set_values(statement, module)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _functions() -> Iterator[FunctionType]:
    return (found for found in gc.get_objects() if type(found) is FunctionType)


def _set_values(statement: ast.stmt, module: ModuleType) -> None:
    """Of an assignment the constant, of a class its attributes, of a function its defaults."""
    if isinstance(statement, ast.ClassDef):
        for name, value in _values(statement.body, module).items():
            setattr(vars(module)[statement.name], name, value)
    elif isinstance(statement, ast.FunctionDef) and statement.args.defaults:
        function = getattr(vars(module)[statement.name], "__wrapped__", vars(module)[statement.name])
        function.__defaults__ = tuple(_value(default, module) for default in statement.args.defaults)
    for name, value in _values([statement], module).items():
        _exchange(name, vars(module)[name], value)


def _values(statements: list[ast.stmt], module: ModuleType) -> dict[str, Any]:
    """Returns the numbers that are given to names, as they now are."""
    found = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        value = _value(statement.value, module)
        if isinstance(target, ast.Name) and isinstance(value, int | float | tuple | dict):
            found[target.id] = value
        elif isinstance(target, ast.Tuple):
            found |= {
                name.id: part for name, part in zip(target.elts, value, strict=True) if isinstance(name, ast.Name)
            }
    return found


def _value(expression: ast.expr, module: ModuleType) -> Any:
    return eval(compile(ast.Expression(expression), str(module.__file__), "eval"), dict(vars(module)))


def _exchange(name: str, old: object, new: object) -> None:
    """Puts a new constant wherever the old one was imported, and where it is a default."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is old:
            setattr(module, name, new)
    if isinstance(old, int) and old <= SHARED:
        return
    for function in _functions():
        defaults = function.__defaults__ or ()
        if any(default is old for default in defaults):
            function.__defaults__ = tuple(new if default is old else default for default in defaults)
        for key, default in (function.__kwdefaults__ or {}).items():
            if default is old:
                function.__kwdefaults__[key] = new  # type: ignore[index]
