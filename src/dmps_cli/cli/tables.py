"""Rows of numbers as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from dmps_cli.cli.columns import WIDE, Layout, console_table
from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.settings import compact
from dmps_cli.report.tables import WITHIN, TableRow
from dmps_cli.report.writers import table_notes
from dmps_cli.text import visible_bytes

_ANY_WIDTH = 100_000


FORMS = (
    WIDE,
    Layout(gap=2, breaks_heads=True),
    Layout(gap=2, breaks_heads=True, lines=2),
    Layout(gap=2, breaks_heads=True, lines=2, moves_constants=True),
    Layout(gap=2, breaks_heads=True, lines=3, moves_constants=True),
    Layout(gap=1, breaks_heads=True, lines=3, moves_constants=True),
)
"""From the widest to the narrowest."""


def fitted_table(rows: Sequence[TableRow], stream: TextIO, *, best_within: Sequence[str] | None = None) -> str:
    """Returns the table as text in the widest of FORMS that a terminal has room for; elsewhere in the widest."""
    console = Console(file=stream)
    for form in FORMS:
        table = console_table(rows, best_within=best_within, form=form)
        if not stream.isatty() or _width(console, table).minimum <= console.width:
            break
    return console_text(table, stream)


def _width(console: Console, table: Table) -> Measurement:
    return Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table)


def console_text(table: Table, stream: TextIO) -> str:
    """Returns the table as it is to be written to the stream, without the last line end.

    On a terminal: in its colours and width; if its numbers need more, the terminal will break the lines. Elsewhere:
    plain, and as wide as the table is. Nothing is ever cut.
    """
    console = Console(file=stream)
    needed = _width(console, table)
    console.width = max(console.width, needed.minimum) if stream.isatty() else needed.maximum
    with console.capture() as capture:
        console.print(table)
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
    return "\n".join([table, *map(visible_bytes, table_notes(summary, protocol, notes))])
