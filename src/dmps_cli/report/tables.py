"""Rows of numbers as a console table, CSV, JSON and Markdown.

A row is a flat mapping from column name to value. What people read labels and rounds metrics as METRICS says; CSV and
JSON hold every digit. None is a value that is not there: an empty cell, null. Columns NAME_std and NAME_ci95 (see
`summaries`) are read in NAME's own cell: 27.31 ± 0.12 (1.05).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from statistics import fmean
from textwrap import wrap
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dmps_cli.metrics.protocol import OF_SAMPLES
from dmps_cli.metrics.table import METRICS
from dmps_cli.text import csv_cell, json_safe, stripped, visible_bytes

Value = str | int | float | None


Row = Mapping[str, Value]


STD, CI = "_std", "_ci95"


CELL_NOTE = "mean ± half the 95 % interval of the mean (standard deviation)"


SOURCE = "source"  # column: where a row is from that was not computed here; such rows are never ranked


WITHIN = ("task", "sigma_y", "n")  # columns in which rivals agree: other images, another n, are no rivals


_LEAST_TEXT = 12  # characters of a text column that a narrow terminal leaves


_ANY_WIDTH = 100_000


# --- Rows
def column_names(rows: Sequence[Row]) -> list[str]:
    """Every column, in the order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def grouped(rows: Sequence[Row], by: Sequence[str]) -> list[tuple[dict[str, Value], list[Row]]]:
    """(key, rows) of each group that agrees in the columns `by`, in the order of first appearance."""
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    return [(dict(zip(by, key, strict=True)), members) for key, members in groups.items()]


def means(rows: Sequence[Row], by: Sequence[str], values: Sequence[str]) -> list[dict[str, Value]]:
    """One row per group: its key, n = how many rows it has, the arithmetic mean of each of `values`.

    by: columns that make a group; none for one group of all. What a row lacks of them is None. A value that some row of
    the group lacks has no mean (None), so that every mean is over n rows. Groups come in the order of first appearance.
    """
    return [
        {**key, "n": len(members), **{name: _mean(members, name) for name in values}}
        for key, members in grouped(rows, by)
    ]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    numbers = [value for row in rows if isinstance(value := row.get(name), int | float)]
    return fmean(numbers) if len(numbers) == len(rows) else None


Ranks = Mapping[tuple[int, str], int]
"""(row, metric) -> 1 for the best, 2 for the second best."""


def ranks(rows: Sequence[Row], within: Sequence[str] = WITHIN) -> dict[tuple[int, str], int]:
    """The best and the second best of each metric among the rows that agree in the columns `within`.

    What looks equal as printed is equally good. A row without a rival is not ranked, nor is one with a `source`; there
    is no second best of two, nor one behind two that are best.
    """
    groups: dict[tuple[Value, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if not row.get(SOURCE):
            groups.setdefault(tuple(row.get(name) for name in within), []).append(index)
    return {place: rank for group in groups.values() for name in METRICS for place, rank in _ranked(rows, group, name)}


def _ranked(rows: Sequence[Row], group: Sequence[int], name: str) -> Iterator[tuple[tuple[int, str], int]]:
    numbers = {index: value for index in group if isinstance(value := rows[index].get(name), int | float)}
    if len(numbers) < 2:
        return
    ordered = sorted(numbers.values(), reverse=METRICS[name].higher_is_better)
    first, second = cell_text(name, ordered[0]), cell_text(name, ordered[1])
    for index, value in numbers.items():
        text = cell_text(name, value)
        if text == first:
            yield (index, name), 1
        elif text == second and len(numbers) > 2:
            yield (index, name), 2


def best(rows: Sequence[Row], within: Sequence[str]) -> set[tuple[int, str]]:
    """(row, metric) of each metric's best among the rows that agree in the columns `within`, see `ranks`."""
    return {place for place, rank in ranks(rows, within).items() if rank == 1}


def shown_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that people read: standard deviations and intervals stand in their mean's cell."""
    names = column_names(rows)
    return [
        name for name in names if not any(name.removesuffix(end) in names for end in (STD, CI) if name.endswith(end))
    ]


def full_text(row: Row, name: str) -> str:
    """'27.31 ± 0.12 (1.05)', or what the row has of it."""
    text = cell_text(name, row.get(name))
    interval, spread = (cell_text(name, row.get(name + end)) for end in (CI, STD))
    return text + (f" ± {interval}" if interval else "") + (f" ({spread})" if spread else "")


def has_intervals(rows: Sequence[Row]) -> bool:
    """Whether CELL_NOTE belongs under the table."""
    spreads = [name for name in column_names(rows) if name not in shown_columns(rows)]
    return any(row.get(name) is not None for row in rows for name in spreads)


def heading(name: str) -> str:
    """A column's heading: 'PSNR dB' for psnr, other names as they are."""
    metric = METRICS.get(name)
    return f"{metric.label} {metric.unit}".rstrip() if metric else OF_SAMPLES.get(name, name)


def cell_text(name: str, value: Value) -> str:
    """A value as people read it: a metric with its digits, another float with four figures."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if name in METRICS:
        return METRICS[name].text(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def is_numeric(rows: Sequence[Row], name: str) -> bool:
    """Whether the column holds numbers alone, which stand to the right."""
    return all(isinstance(row.get(name), int | float | None) for row in rows)


# --- Formats
@dataclass(frozen=True, kw_only=True)
class Form:
    """How a console table is laid out. gap: spaces between columns, 1 to 3; lines: of a mean with its interval.

    breaks_heads: no heading is wider than its cells and longest word need; moves_constants: columns in which all rows
    agree are said under the table.
    """

    gap: int = 3
    lines: int = 1
    breaks_heads: bool = False
    moves_constants: bool = False


WIDE = Form()


FORMS = (
    WIDE,
    Form(gap=2, breaks_heads=True),
    Form(gap=2, breaks_heads=True, lines=2),
    Form(gap=2, breaks_heads=True, lines=2, moves_constants=True),
    Form(gap=2, breaks_heads=True, lines=3, moves_constants=True),
    Form(gap=1, breaks_heads=True, lines=3, moves_constants=True),
)
"""From the widest to the narrowest."""


def console_table(
    rows: Sequence[Row], *, title: str | None = None, best_within: Sequence[str] | None = None, form: Form = WIDE
) -> Table:
    """A rich table: numbers to the right and never cut, texts folded where the terminal is narrow.

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


def _constants(rows: Sequence[Row]) -> dict[str, str]:
    """The columns of names and counts in which several rows agree, with what they say."""
    found = {name: {row.get(name) for row in rows} for name in shown_columns(rows)}
    alike = {name: values.pop() for name, values in found.items() if len(rows) > 1 and len(values) == 1}
    return {name: str(value) for name, value in alike.items() if isinstance(value, str | int)}


def _add_column(table: Table, rows: Sequence[Row], name: str, texts: Sequence[str], form: Form) -> None:
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
        table.add_column(Text(head), overflow="fold", min_width=min(widest, _LEAST_TEXT))


def _starred_column(rows: Sequence[Row], name: str, marked: set[tuple[int, str]], lines: int) -> list[str]:
    # the star in front: behind, it would push the digits out of line
    cells = [visible_bytes(full_text(row, name)) for row in rows]
    texts = ["*" * ((index, name) in marked) + cell for index, cell in enumerate(cells)]
    return _aligned(texts, lines)


def _aligned(texts: Sequence[str], lines: int) -> list[str]:
    """Cells 'mean ± interval (deviation)', on so many lines, with each part below its like; others as they are."""
    if not any(" ± " in text for text in texts):
        return [*texts]
    parts = [(*text.split(" ", maxsplit=3), "", "", "")[:4] for text in texts]
    widths = [max(map(len, column)) for column in zip(*parts, strict=True)]
    padded = [[part.rjust(width) for part, width in zip(row, widths, strict=True)] for row in parts]
    breaks = {1: [slice(0, 4)], 2: [slice(0, 3), slice(3, 4)], 3: [slice(0, 1), slice(1, 3), slice(3, 4)]}[lines]
    split = [[" ".join(row[part]) for part in breaks] for row in padded]
    widest = max(len(line) for cell in split for line in cell)
    return ["\n".join(line.rjust(widest) for line in cell) for cell in split]


def fitted_table(rows: Sequence[Row], stream: TextIO, *, best_within: Sequence[str] | None = None) -> str:
    """The table as text in the widest of FORMS that a terminal has room for; elsewhere in the widest."""
    console = Console(file=stream)
    for form in FORMS:
        table = console_table(rows, best_within=best_within, form=form)
        if not stream.isatty() or _width(console, table).minimum <= console.width:
            break
    return console_text(table, stream)


def _width(console: Console, table: Table) -> Measurement:
    return Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table)


def console_text(table: Table, stream: TextIO) -> str:
    """The table as it is to be written to the stream, without the last line end.

    On a terminal: in its colours and width; if its numbers need more, the terminal will break the lines. Elsewhere:
    plain, and as wide as the table is. Nothing is ever cut.
    """
    console = Console(file=stream)
    needed = _width(console, table)
    console.width = max(console.width, needed.minimum) if stream.isatty() else needed.maximum
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV with a header (RFC 4180, but lines end in a bare line feed), floats in full.

    What a row lacks is an empty cell; infinity and NaN are inf, -inf and nan. A text that a spreadsheet would take for
    a formula has an apostrophe before it.
    """
    names = column_names(rows)
    cells = ([csv_cell(row.get(name, "")) for name in names] for row in rows)
    return _csv_line(names) + "".join(map(_csv_line, cells))


def _csv_line(cells: Sequence[object]) -> str:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # quotes a cell with either character, not with one alone
    return text.getvalue().removesuffix("\r\n") + "\n"


def json_text(content: Mapping[str, Any]) -> str:
    """One strict JSON object, floats in full, without the last line end.

    Infinity and NaN, which JSON lacks, are the strings 'inf', '-inf' and 'nan': what CSV says and float() reads back.
    """
    text = json.dumps(_strict(content), indent=1, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file's name that is no UTF-8: escaped, as Python reads it back
        return json.dumps(_strict(content), indent=1, allow_nan=False)
    return json_safe(text)


def _strict(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value


def markdown(rows: Sequence[Row], *, best_within: Sequence[str] | None = None) -> str:
    """The rows as a GitHub table, padded to be read as text too; the best (see `ranks`) bold, the second underlined.

    An arrow in the heading of a metric says which way is better.
    """
    marks = {} if best_within is None else ranks(rows, best_within)
    columns = []
    for name in shown_columns(rows):
        texts = [_markdown_cell(full_text(row, name), marks.get((index, name))) for index, row in enumerate(rows)]
        columns.append(_markdown_column(_escape(arrow_heading(name)), texts, to_the_right=is_numeric(rows, name)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def arrow_heading(name: str) -> str:
    """'PSNR dB ↑': the heading, of a metric with an arrow that says which way is better."""
    metric = METRICS.get(name)
    return heading(name) + ("" if metric is None else " ↑" if metric.higher_is_better else " ↓")


def _markdown_cell(text: str, rank: int | None) -> str:
    text = _escape(text)
    return f"**{text}**" if rank == 1 else f"<u>{text}</u>" if rank == 2 else text


def _escape(text: str) -> str:
    plain = stripped(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def _markdown_column(head: str, texts: Sequence[str], *, to_the_right: bool) -> list[str]:
    width = max(3, *map(len, (head, *texts)))
    rule = "-" * (width - 1) + ":" if to_the_right else "-" * width
    pad = str.rjust if to_the_right else str.ljust
    return [pad(head, width), rule, *(pad(text, width) for text in texts)]
