"""Rows of numbers as CSV, JSON and Markdown.

A row is a flat mapping from column name to value. What people read labels and rounds metrics as METRICS says; CSV and
JSON hold every digit. None is a value that is not there: an empty cell, null. Columns NAME_std and NAME_ci95 (see
`summaries`) are read in NAME's own cell: 27.31 ± 0.12 (1.05).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from statistics import fmean
from typing import Any

from dmps_cli.metrics.protocol import OF_SAMPLES
from dmps_cli.metrics.table import METRICS
from dmps_cli.text import csv_cell, json_safe, stripped

Value = str | int | float | None
TableRow = Mapping[str, Value]
STD, CI = "_std", "_ci95"
SOURCE = "source"  # column: where a row is from that was not computed here; such rows are never ranked
WITHIN = ("task", "sigma_y", "n")  # columns in which rivals agree: other images, another n, are no rivals


# --- Rows
def column_names(rows: Sequence[TableRow]) -> list[str]:
    """Returns every column, in the order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def grouped(rows: Sequence[TableRow], by: Sequence[str]) -> list[tuple[dict[str, Value], list[TableRow]]]:
    """Returns (key, rows) of each group that agrees in the columns `by`, in the order of first appearance."""
    groups: dict[tuple[Value, ...], list[TableRow]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    return [(dict(zip(by, key, strict=True)), members) for key, members in groups.items()]


def means(rows: Sequence[TableRow], by: Sequence[str], values: Sequence[str]) -> list[dict[str, Value]]:
    """Returns one row per group: its key, n = how many rows it has, the arithmetic mean of each of `values`.

    by: columns that make a group; none for one group of all. What a row lacks of them is None. A value that some row of
    the group lacks has no mean (None), so that every mean is over n rows. Groups come in the order of first appearance.
    """
    return [
        {**key, "n": len(members), **{name: _mean(members, name) for name in values}}
        for key, members in grouped(rows, by)
    ]


def _mean(rows: Sequence[TableRow], name: str) -> float | None:
    numbers = [value for row in rows if isinstance(value := row.get(name), int | float)]
    return fmean(numbers) if len(numbers) == len(rows) else None


def ranks(rows: Sequence[TableRow], within: Sequence[str] = WITHIN) -> dict[tuple[int, str], int]:
    """Returns the best and the second best of each metric among the rows that agree in the columns `within`.

    What looks equal as printed is equally good. A row without a rival is not ranked, nor is one with a `source`; there
    is no second best of two, nor one behind two that are best.
    """
    groups: dict[tuple[Value, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if not row.get(SOURCE):
            groups.setdefault(tuple(row.get(name) for name in within), []).append(index)
    return {place: rank for group in groups.values() for name in METRICS for place, rank in _ranked(rows, group, name)}


def _ranked(rows: Sequence[TableRow], group: Sequence[int], name: str) -> Iterator[tuple[tuple[int, str], int]]:
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


def best(rows: Sequence[TableRow], within: Sequence[str]) -> set[tuple[int, str]]:
    """Returns (row, metric) of each metric's best among the rows that agree in the columns `within`, see `ranks`."""
    return {place for place, rank in ranks(rows, within).items() if rank == 1}


def shown_columns(rows: Sequence[TableRow]) -> list[str]:
    """Returns the columns that people read: standard deviations and intervals stand in their mean's cell."""
    names = column_names(rows)
    return [
        name for name in names if not any(name.removesuffix(end) in names for end in (STD, CI) if name.endswith(end))
    ]


def full_text(row: TableRow, name: str) -> str:
    """Returns '27.31 ± 0.12 (1.05)', or what the row has of it."""
    text = cell_text(name, row.get(name))
    interval, spread = (cell_text(name, row.get(name + end)) for end in (CI, STD))
    return text + (f" ± {interval}" if interval else "") + (f" ({spread})" if spread else "")


def cell_notes(rows: Sequence[TableRow]) -> list[str]:
    """Returns how a cell is read, as none or one sentence: what `full_text` puts into it."""
    shown = shown_columns(rows)
    ends = {end for row in rows for end in (CI, STD) for name in shown if row.get(name + end) is not None}
    if CI in ends:
        return ["mean ± half the 95 % interval of the mean (standard deviation)"]
    return ["mean (standard deviation); two images say nothing of an interval"] if STD in ends else []


def heading(name: str) -> str:
    """Returns a column's heading: 'PSNR dB' for psnr, other names as they are."""
    metric = METRICS.get(name)
    return f"{metric.label} {metric.unit}".rstrip() if metric else OF_SAMPLES.get(name, name)


def cell_text(name: str, value: Value) -> str:
    """Returns a value as people read it: a metric with its digits, another float with four figures."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if name in METRICS:
        return METRICS[name].text(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def is_numeric(rows: Sequence[TableRow], name: str) -> bool:
    """Returns whether the column holds numbers alone, which stand to the right."""
    return all(isinstance(row.get(name), int | float | None) for row in rows)


# --- Formats


def csv_text(rows: Sequence[TableRow]) -> str:
    """Returns the rows as CSV with a header (RFC 4180, but lines end in a bare line feed), floats in full.

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
    """Returns one strict JSON object, floats in full, without the last line end.

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


def markdown(rows: Sequence[TableRow], *, best_within: Sequence[str] | None = None) -> str:
    """Returns the rows as a GitHub table, padded to be read as text too.

    The best (see `ranks`) bold, the second underlined.

    An arrow in the heading of a metric says which way is better.
    """
    marks = {} if best_within is None else ranks(rows, best_within)
    columns = []
    for name in shown_columns(rows):
        texts = [_markdown_cell(full_text(row, name), marks.get((index, name))) for index, row in enumerate(rows)]
        columns.append(_markdown_column(_escape(arrow_heading(name)), texts, to_the_right=is_numeric(rows, name)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def arrow_heading(name: str) -> str:
    """Returns 'PSNR dB ↑': the heading, of a metric with an arrow that says which way is better."""
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
