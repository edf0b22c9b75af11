"""Small mistakes that one could make in a module: an operator, number, comparison or function is another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OTHER_NAMES = {
    "min": "max",
    "max": "min",
    "amin": "amax",
    "amax": "amin",
    "minimum": "maximum",
    "maximum": "minimum",
    "clamp_min": "clamp_max",
    "floor": "ceil",
    "ceil": "floor",
    "cos": "sin",
    "sin": "cos",
    "sum": "mean",
    "mean": "sum",
}
LEFT_OUT = {"sqrt", "square", "abs", "round", "conj", "flip", "exp", "log", "clamp", "clamp_min", "clipped"}
"""Functions whose argument, and methods whose object, stands in their place."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One mistake: where it is, how its line reads with it, and the tree of the whole module with it."""

    line: int
    scope: str
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.scope}: {self.text}".removeprefix(": ")


def changes(source: str) -> Iterator[Change]:
    """Yields every change of a module, in the order of its text."""
    lines = source.encode().splitlines()
    for number in range(sum(1 for _ in _Walk().found(ast.parse(source)))):
        tree = ast.parse(source)
        node, attribute, index, new, scope = list(_Walk().found(tree))[number]
        container = getattr(node, attribute)
        old = container if index is None else container[index]
        text = _mistaken(lines, old, new)
        ast.copy_location(new, old)
        for inner in ast.walk(new):
            ast.copy_location(inner, old) if not hasattr(inner, "lineno") else None
        if index is None:
            setattr(node, attribute, new)
        else:
            container[index] = new
        yield Change(line=old.lineno, scope=scope, text=text, tree=ast.fix_missing_locations(tree))


def _mistaken(lines: list[bytes], old: ast.expr, new: ast.expr) -> str:
    """Returns the lines of an expression with another in its place. lines: of the source, in UTF-8, as ast counts."""
    assert old.end_lineno is not None
    after = ast.unparse(new)
    if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare) and type(new) is not type(old):
        after = f"({after})"
    before, behind = lines[old.lineno - 1][: old.col_offset], lines[old.end_lineno - 1][old.end_col_offset :]
    return (before.decode() + after + behind.decode()).strip()


Place = tuple[ast.AST, str, int | None, ast.expr, str]


class _Walk:
    """Every place of a tree where an expression may stand in another's place."""

    def found(self, node: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[Place]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            scope = (*scope, node.name)
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        for attribute, value in ast.iter_fields(node):
            if attribute in ("annotation", "returns", "decorator_list", "type_params", "bases", "kw_defaults"):
                continue
            children = value if isinstance(value, list) else [value]
            for index, child in enumerate(children):
                place = index if isinstance(value, list) else None
                if isinstance(child, ast.expr):
                    for new in replacements(child):
                        yield node, attribute, place, new, ".".join(scope)
                if isinstance(child, ast.AST):
                    yield from self.found(child, scope)


def replacements(node: ast.expr) -> Iterator[ast.expr]:
    """Yields what may stand in the place of an expression by mistake."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand) | ast.Attribute(operand, "mT" | "T"):
            yield operand
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Compare(left, [op], right):
            yield from (ast.Compare(left, [other()], right) for other in COMPARISONS[type(op)])
        case ast.IfExp(test, body, orelse) if not isinstance(test, ast.Compare):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant(bool() | int() | float() as value):
            yield ast.Constant(other_number(value))
        case ast.Call(function, arguments):
            yield from other_calls(node, function, arguments)


def other_number(value: float) -> float:
    """Returns the other truth, the next whole number, or a tenth more."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else (1.1 * value or 0.1)


def other_calls(node: ast.Call, function: ast.expr, arguments: list[ast.expr]) -> Iterator[ast.expr]:
    """Yields a call of the opposite function, what the function is called with, and `where` the other way round."""
    match function:
        case ast.Name(name):
            opposite: ast.expr = ast.Name(OTHER_NAMES.get(name, ""), ast.Load())
            operand = arguments[0] if arguments else node
        case ast.Attribute(value, name):
            opposite = ast.Attribute(value, OTHER_NAMES.get(name, ""), ast.Load())
            is_function = isinstance(value, ast.Name) and value.id in ("math", "torch")
            operand = arguments[0] if is_function and arguments else value
        case _:
            return
    if name in OTHER_NAMES:
        yield ast.Call(opposite, arguments, node.keywords)
    if name in LEFT_OUT:
        yield operand
    if name == "where" and len(arguments) == 3:
        yield ast.Call(function, [arguments[0], arguments[2], arguments[1]], node.keywords)
