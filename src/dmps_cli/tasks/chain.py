"""Tasks one after another, as they are typed: "blur(gauss:1.6) | decimate(2) | mask(m.png)", read left to right.

A link is NAME, NAME(VALUE), NAME(option=value, ...) or both; VALUE, which may hold commas, is the task's own option
(`Task.main`). What a link says is its alone: the text is the whole operator, on the command line, in a sidecar, in
Python.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from dmps_cli.errors import UsageError

MAX_TEXT = 400
"""Characters of a chain: it stands in file names' hashes, tables and sidecars."""

_OPTION = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9_-]*)\s*=")
_LINK = re.compile(r"([A-Za-z0-9_.-]+)\s*(?:\((.*)\))?", re.DOTALL)
SLUG = 24
"""Characters of a chain that stand in file names, before its hash."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """One task of a chain: its name, the value that has no name, the options that have one; all as typed."""

    name: str
    main: str | None
    options: dict[str, str]

    def __str__(self) -> str:
        named = [f"{name}={value}" for name, value in self.options.items()]
        inside = ", ".join([*([] if self.main is None else [self.main]), *named])
        return f"{self.name}({inside})" if inside else self.name


def is_chain(text: str) -> bool:
    """Returns whether a text is a chain by its form; a task's name has neither bars nor parentheses."""
    return "|" in text or "(" in text


def parsed(text: str) -> tuple[Link, ...]:
    """Returns the links of a chain. Raises UsageError for what is none."""
    if len(text) > MAX_TEXT or not text.isprintable():
        raise UsageError(f"--task has {len(text)} characters; at most {MAX_TEXT}, all of them printable, are read")
    return tuple(_link(part, text) for part in split_outside(text, "|"))


def _link(part: str, text: str) -> Link:
    match = _LINK.fullmatch(part)
    if match is None:
        shown = f"'{part}'" if part else "nothing, beside a bar,"
        raise UsageError(f"--task is '{text}': {shown} is no task; write blur(gauss:1.6) | decimate(2)")
    inside = (match[2] or "").strip()
    starts = list(_OPTION.finditer(inside))
    ends = [*(start.start() for start in starts[1:]), len(inside)]
    main = inside[: starts[0].start() if starts else len(inside)].strip()
    options = {
        start[1].replace("-", "_"): inside[start.end() : end].strip() for start, end in zip(starts, ends, strict=False)
    }
    if len(options) < len(starts):
        raise UsageError(f"--task is '{text}': an option of {match[1]} is given twice")
    return Link(name=match[1], main=main or None, options=options)


def normal(text: str) -> str:
    """Returns a chain with single spaces around its bars; any other name as it is. Raises UsageError."""
    return " | ".join(map(str, parsed(text))) if is_chain(text) else text


def split_outside(text: str, at: str) -> list[str]:
    """Returns the parts of a text between the characters `at` that stand outside of parentheses, stripped.

    Raises UsageError for parentheses that do not pair.
    """
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
        if character == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth != 0:
        raise UsageError(f"'{text}': a parenthesis is not {'closed' if depth > 0 else 'opened'}")
    return [part.strip() for part in parts]


def split_tasks(text: str) -> list[str]:
    """Returns the tasks of a list with commas between, each once; commas inside parentheses belong to one task."""
    return [*dict.fromkeys(normal(part) for part in split_outside(text, ",") if part)]


def slug(text: str) -> str:
    """Returns a task's name for names of files: itself, of a chain a few of its letters and its hash."""
    if not is_chain(text):
        return text
    letters = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:SLUG].rstrip("-.")
    return f"{letters}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
