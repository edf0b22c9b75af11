"""Rows of numbers as columns of a rich table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dmps_cli.report.tables import TableRow, best, full_text, heading, is_numeric, shown_columns
from dmps_cli.text import visible_bytes

_LEAST_TEXT = 12  # characters of a text column that a narrow terminal leaves


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a console table is laid out. gap: spaces between columns, 1 to 3; lines: of a mean with its interval.

    breaks_heads: no heading is wider than its cells and longest word need; moves_constants: columns in which all rows
    agree are said under the table. word: characters of a word that is not broken.
    """

    gap: int = 3
    lines: int = 1
    breaks_heads: bool = False
    moves_constants: bool = False
    word: int = 20


WIDE = Layout()


def console_table(
    rows: Sequence[TableRow], *, title: str | None = None, best_within: Sequence[str] | None = None, form: Layout = WIDE
) -> Table:
    """Returns a rich table: numbers to the right and never cut, texts folded where the terminal is narrow.

    best_within: with these columns equal, the best of each metric is marked with a star (see `best`).
    """
    marked = set() if best_within is None else best(rows, best_within)
    constant = _constants(rows) if form.moves_constants else {}
    said = ", ".join(f"{heading(name)} {text}" for name, text in constant.items())
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=Text(visible_bytes(f"all rows: {said}")) if said else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1 if form.gap > 1 else 0, 0, 1 if form.gap > 2 else 0),
        pad_edge=False,
    )
    columns = {n: _starred_column(rows, n, marked, form.lines) for n in shown_columns(rows) if n not in constant}
    for name, texts in columns.items():
        _add_column(table, rows, name, texts, form)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))  # Text: square brackets of file names are not markup
    return table


def _constants(rows: Sequence[TableRow]) -> dict[str, str]:
    """Returns the columns of names and counts in which several rows agree, with what they say."""
    found = {name: {row.get(name) for row in rows} for name in shown_columns(rows)}
    alike = {name: values.pop() for name, values in found.items() if len(rows) > 1 and len(values) == 1}
    return {name: str(value) for name, value in alike.items() if isinstance(value, str | int)}


def _add_column(table: Table, rows: Sequence[TableRow], name: str, texts: Sequence[str], form: Layout) -> None:
    head = visible_bytes(heading(name))
    widest = max((len(line) for text in texts for line in text.split("\n")), default=0)
    if form.breaks_heads:
        head = "\n".join(wrap(head, max([widest, *map(len, head.split())])))
    widest = max(widest, *map(len, head.split("\n")))
    if any(" ± " in text or "\n" in text for text in texts):  # aligned already; rich would strip what stands behind
        lines = [line.rjust(len(texts[0].split("\n")[0])) for line in head.split("\n")]
        table.add_column(Text("\n".join(lines)), no_wrap=True, min_width=widest)
    elif is_numeric(rows, name):
        table.add_column(Text(head), justify="right", no_wrap=True, min_width=widest)
    else:
        longest = max((len(word) for text in texts for word in text.split()), default=0)
        least = min(widest, max(_LEAST_TEXT, min(longest, form.word)))
        table.add_column(Text(head), overflow="fold", min_width=least)


def _starred_column(rows: Sequence[TableRow], name: str, marked: set[tuple[int, str]], lines: int) -> list[str]:
    # the star in front: behind, it would push the digits out of line
    cells = [visible_bytes(full_text(row, name)) for row in rows]
    texts = ["*" * ((index, name) in marked) + cell for index, cell in enumerate(cells)]
    return _aligned(texts, lines)


def _aligned(texts: Sequence[str], lines: int) -> list[str]:
    """Returns cells 'mean ± interval (deviation)', on so many lines, each part below its like; others as they are."""
    if not any(" ± " in text for text in texts):
        return [*texts]
    parts = [(*text.split(" ", maxsplit=3), "", "", "")[:4] for text in texts]
    widths = [max(map(len, column)) for column in zip(*parts, strict=True)]
    padded = [[part.rjust(width) for part, width in zip(row, widths, strict=True)] for row in parts]
    breaks = {1: [slice(0, 4)], 2: [slice(0, 3), slice(3, 4)], 3: [slice(0, 1), slice(1, 3), slice(3, 4)]}[lines]
    split = [[" ".join(row[part]) for part in breaks] for row in padded]
    widest = max(len(line) for cell in split for line in cell)
    return ["\n".join(line.rjust(widest) for line in cell) for cell in split]
