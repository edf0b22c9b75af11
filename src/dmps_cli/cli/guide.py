"""What to type, for a person who has named no task: what each is for, and what fits the picture at hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli.tasks.purposes import (
    BLOCKS,
    DEFOCUS,
    GREY,
    MOVED,
    NOISE,
    OF_A_PICTURE,
    SMALL,
    SOFT,
    TRANSPARENT,
    Purpose,
)
from dmps_cli.units import SEEN_ROUNDING

if TYPE_CHECKING:
    from dmps_cli.jobs.inspection import Look


SEEN_NOISE = 2.0  # grey levels of 255
SMALL_SIDE = 320  # px; a picture with a shorter side is enlarged more often than not


def typed(command: str, inputs: Sequence[str]) -> str:
    """Returns a command and its first input, as they are typed: `dmps restore photo.png`."""
    return shlex.join(["dmps", command, *inputs[:1]])


def guide(path: Path) -> list[str]:
    """Returns lines for a person whose picture no sidecar describes. Raises InputError if it cannot be read."""
    from dmps_cli.jobs.inspection import look

    rows = [(purpose.fault, purpose.arguments, purpose.note) for purpose in OF_A_PICTURE]
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(2)]
    table = [f"  {fault:{widths[0]}}{arguments:{widths[1]}}{note}".rstrip() for fault, arguments, note in rows]
    seen = look(path)
    if seen is None:
        own = [f"{path} holds floats that are no picture; what `dmps degrade` wrote needs the .json beside it"]
    else:
        fits = [f"  {typed('restore', [str(path)])} {fit.arguments}" for fit in fitting(seen)]
        own = [f"{described(path, seen)}; {'of these may fit:' if fits else 'nothing is plainly wrong with it'}", *fits]
    return ["what is wrong with it, and what to add:", *table, *own]


def described(path: Path, seen: Look) -> str:
    """Returns one line about a picture: its size, its colours, its noise, its edges."""
    facts = [f"{seen.width} x {seen.height} px", "grey" if seen.is_grey else "in colour"]
    if seen.transparent:
        facts.append(f"transparent in {seen.transparent:.1%} of it")
    if seen.noise >= SEEN_NOISE:
        facts.append(f"noise about {seen.noise:.0f} of 255 (estimated)")
    if seen.rounding >= SEEN_ROUNDING:
        facts.append(f"JPEG with an error of about {seen.rounding:.0f} of 255")
    if seen.moved_along and seen.edge:
        facts.append(f"its edges {seen.edge:.0f} px wide {seen.moved_along} and sharper across")
    elif seen.edge:
        facts.append(f"its edges {seen.edge:.0f} px wide")
    elif any(seen.edges):
        facts.append("its edges sharp")
    return f"{path} is {', '.join(facts)}"


def fitting(seen: Look) -> Iterator[Purpose]:
    """Yields what may be wrong with a picture, by what it shows."""
    if seen.transparent:
        yield TRANSPARENT
    if seen.noise >= SEEN_NOISE:
        yield NOISE
    if seen.rounding >= SEEN_ROUNDING:
        yield BLOCKS
    if seen.moved_along:
        yield MOVED
    elif seen.edge:
        yield from (DEFOCUS, SOFT)
    if min(seen.width, seen.height) < SMALL_SIDE:
        yield SMALL
    if seen.is_grey:
        yield GREY
