"""Rows of numbers as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from dmps_cli.cli.columns import WIDE, Layout, console_table
from dmps_cli.cli.streams import wrapped
from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.settings import compact
from dmps_cli.report.tables import WITHIN, TableRow
from dmps_cli.report.writers import table_notes
from dmps_cli.text import visible_bytes

PIPE_WIDTH = 100
"""Columns of a table that no terminal shows, of which nobody knows the width."""


FORMS = (
    WIDE,
    Layout(gap=2, breaks_heads=True),
    Layout(gap=2, breaks_heads=True, lines=2),
    Layout(gap=2, breaks_heads=True, lines=2, moves_constants=True),
    Layout(gap=2, breaks_heads=True, lines=3, moves_constants=True),
    Layout(gap=1, breaks_heads=True, lines=3, moves_constants=True),
    Layout(gap=1, breaks_heads=True, lines=3, moves_constants=True, word=8),
)
"""From the widest to the narrowest."""


def fitted_table(rows: Sequence[TableRow], stream: TextIO, *, best_within: Sequence[str] | None = None) -> str:
    """Returns the table as text in the widest of FORMS that a terminal, or a pipe (PIPE_WIDTH), has room for."""
    room = room_of(stream)
    for form in FORMS:
        table = console_table(rows, best_within=best_within, form=form)
        if least_width(table) <= room:
            break
    return console_text(table, stream)


def room_of(stream: TextIO) -> int:
    """Returns the columns that a stream has room for."""
    return Console(file=stream).width if stream.isatty() else PIPE_WIDTH


def least_width(table: Table) -> int:
    """Returns the columns that a table of `console_table` cannot do without: rich would count whole words."""
    gaps = 1 + table.padding[1] + table.padding[3]
    return 2 + sum(column.min_width or 0 for column in table.columns) + gaps * (len(table.columns) - 1)


def console_text(table: Table, stream: TextIO) -> str:
    """Returns the table as it is to be written to the stream, without the last line end.

    On a terminal: in its colours and width; elsewhere: plain, in PIPE_WIDTH columns. If its numbers need more, it is as
    wide as they need. Nothing is ever cut.
    """
    console = Console(file=stream)
    console.width = max(room_of(stream), least_width(table))
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def markdown_text(text: str, stream: TextIO) -> str:
    """Returns a page of Markdown as it is to be written to the stream: laid out on a terminal, elsewhere as it is."""
    if not stream.isatty():
        return text.rstrip()
    console = Console(file=stream, width=min(room_of(stream), PIPE_WIDTH))
    with console.capture() as capture:
        console.print(Markdown(text))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def console_report(
    summary: Sequence[TableRow],
    protocol: Protocol,
    stream: TextIO,
    *,
    notes: Sequence[str] = (),
    within: Sequence[str] = WITHIN,
) -> str:
    """Returns what the terminal is shown: the `compact` table with stars for the best, and the sentences under it."""
    table = fitted_table(compact(summary), stream, best_within=within)
    said = [wrapped(visible_bytes(note), stream) for note in table_notes(summary, protocol, notes)]
    return "\n".join([table, *said])
