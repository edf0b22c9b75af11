"""A run's tables as the files of its folder, each with the sentence that says how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.latex import latex
from dmps_cli.report.settings import compact, setting_notes
from dmps_cli.report.tables import (
    SOURCE,
    WITHIN,
    TableRow,
    cell_notes,
    csv_text,
    json_text,
    markdown,
)

ROWS, MEANS, RESULTS, MARKDOWN, LATEX = "rows.csv", "means.csv", "results.json", "table.md", "table.tex"
PROTOCOL = "protocol.json"  # how the numbers of the CSV files beside it came about
PAGE = "report.html"
TABLES = (ROWS, MEANS, PROTOCOL, RESULTS)
REPORTS = (MARKDOWN, LATEX, PAGE)


def table_notes(summary: Sequence[TableRow], protocol: Protocol, notes: Sequence[str] = ()) -> list[str]:
    """Returns the sentences under a table: how a cell is read, the protocol, the caller's."""
    return [*cell_notes(summary), protocol.line(), *notes]


def table_files(
    rows: Sequence[TableRow],
    summary: Sequence[TableRow],
    protocol: Protocol,
    facts: Mapping[str, Any],
    *,
    notes: Sequence[str] = (),
    within: Sequence[str] = WITHIN,
) -> dict[str, str]:
    """Returns file name -> text.

    Every row and the summaries as CSV, their protocol beside them; all of it as JSON; the summaries as Markdown and
    LaTeX.

    summary: of `summaries`, or of `beside_paper`; for Markdown and LaTeX it is made `compact`. facts: go into the JSON,
    which has the protocol too.
    """
    sentences = [*notes, *setting_notes(summary)]
    foot = "\n\n".join(f"{note}." for note in table_notes(summary, protocol, sentences))
    narrow = compact(summary)
    content = results_object(rows, summary, protocol, facts, notes=notes)
    return {
        ROWS: csv_text(rows),
        MEANS: csv_text(summary),
        PROTOCOL: json_text({"line": protocol.line(), **protocol.as_dict(), "notes": [*notes]}) + "\n",
        RESULTS: json_text(content) + "\n",
        MARKDOWN: f"{markdown(narrow, best_within=within)}\n\n{foot}\n",
        LATEX: latex(narrow, best_within=within, notes=[protocol.line(), *sentences]),
    }


def results_object(
    rows: Sequence[TableRow],
    summary: Sequence[TableRow],
    protocol: Protocol,
    facts: Mapping[str, Any],
    *,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the run as one JSON object: the facts, the protocol, the summaries, every row."""
    return {
        **facts,
        "protocol": protocol.as_dict(),
        "protocol_line": protocol.line(),
        "notes": [*notes],
        "means": [row for row in summary if not row.get(SOURCE)],
        "paper": [row for row in summary if row.get(SOURCE)],
        "rows": [*rows],
    }
