"""What to type, for a person who has named no task: what each is for, and what fits the picture at hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli.errors import UsageError
from dmps_cli.purposes import DAMAGED, DEFOCUS, GREY, MOVED, NOISE, OF_A_PICTURE, SMALL, SOFT, Purpose

if TYPE_CHECKING:
    from dmps_cli.inspection import Look

SMALL_SIDE = 320  # px; a picture with a shorter side is enlarged more often than not


class NoTaskError(UsageError):
    """Nothing says how a picture was degraded."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: nothing says how it was degraded; name a --task")
        self.path = path


def typed(command: str, inputs: Sequence[str]) -> str:
    """A command and its first input, as they are typed: `dmps restore photo.png`."""
    return shlex.join(["dmps", command, *inputs[:1]])


def guide(path: Path) -> list[str]:
    """Lines for a person whose picture no sidecar describes. Raises InputError if it cannot be read."""
    from dmps_cli.inspection import look

    rows = [(purpose.fault, purpose.arguments, purpose.note) for purpose in OF_A_PICTURE]
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(2)]
    table = [f"  {fault:{widths[0]}}{arguments:{widths[1]}}{note}".rstrip() for fault, arguments, note in rows]
    seen = look(path)
    if seen is None:
        own = [f"{path} holds floats that are no picture; what `dmps degrade` wrote needs the .json beside it"]
    else:
        own = [described(path, seen), *(f"  {typed('restore', [str(path)])} {fit.arguments}" for fit in fitting(seen))]
    return ["what is wrong with it, and what to add:", *table, *own]


def described(path: Path, seen: Look) -> str:
    """One line about a picture: its size, its colours, its edges, and what may fit."""
    facts = [f"{seen.width} x {seen.height} px", "grey" if seen.is_grey else "in colour"]
    if seen.transparent:
        facts.append(f"transparent in {seen.transparent:.1%} of it")
    if seen.moved_along and seen.edge:
        facts.append(f"its edges {seen.edge:.0f} px wide {seen.moved_along} and sharper across")
    elif seen.edge:
        facts.append(f"its edges {seen.edge:.0f} px wide")
    elif any(seen.edges):
        facts.append("its edges sharp")
    return f"{path} is {', '.join(facts)}; of these may fit:"


def fitting(seen: Look) -> Iterator[Purpose]:
    """What may be wrong with a picture, by what it shows."""
    if seen.transparent:
        yield DAMAGED
    if seen.moved_along:
        yield MOVED
    elif seen.edge:
        yield from (DEFOCUS, SOFT)
    else:
        yield NOISE
    if min(seen.width, seen.height) < SMALL_SIDE:
        yield SMALL
    if seen.is_grey:
        yield GREY
