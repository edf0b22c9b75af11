"""A run as one HTML file: tables, protocol, pictures, plots. Nothing is fetched and no script runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dmps_cli.report.drawing import has_bands, missing, svg
from dmps_cli.report.plots import Chart
from dmps_cli.report.sheets import Case, case_columns, case_shots
from dmps_cli.report.tables import (
    WITHIN,
    TableRow,
    arrow_heading,
    cell_notes,
    full_text,
    is_numeric,
    json_text,
    ranks,
    shown_columns,
)
from dmps_cli.text import stripped

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image


MAX_BYTES = 9_500_000  # of the pictures, in base64: the page stays under 10 MB
_QUALITIES = ((256, 85), (256, 70), (192, 70), (128, 70))  # (longest side px, JPEG quality), the first that fits


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of rows (of `summaries`, with the paper's beside them or not) under a heading; ranked within columns."""

    title: str
    rows: Sequence[TableRow]
    within: Sequence[str] = WITHIN


def html_page(
    title: str,
    sections: Sequence[Section],
    *,
    notes: Sequence[str] = (),
    cases: Sequence[Case] = (),
    charts: Sequence[Chart] = (),
    facts: Mapping[str, Any] | None = None,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Returns the page as text, to be written in UTF-8.

    notes: sentences under the tables, the protocol first. cases: pictures, a table of them per task. facts: the run's
    configuration, shown as JSON. max_bytes: of all pictures; they are reduced to fit, and the last of each task are
    left out if that is not enough: the page says so.
    """
    return _template().render(
        title=title,
        sections=[_laid_out(section) for section in sections],
        notes=notes,
        plots=[] if missing() else [_Plot(chart.title, _base64(svg(chart).encode())) for chart in charts],
        plot_notes=_plot_notes(charts),
        tasks=_pictures(cases, max_bytes),
        facts=json_text(facts) if facts else "",
    )


@cache
def _template() -> Template:
    """Returns the page's template, which escapes every text and drops what a terminal would obey."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dmps_cli.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: _plain(value) if isinstance(value, str) else value,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja")


def _plain(text: str) -> str:
    """Returns it without control characters; bytes that are no UTF-8 as a replacement character."""
    return stripped(text).encode("utf-8", "replace").decode("utf-8")


# --- Tables and plots
class _Column(NamedTuple):
    heading: str
    is_numeric: bool


class _Cell(NamedTuple):
    text: str
    rank: int | None
    is_numeric: bool


class _Row(NamedTuple):
    cells: Sequence[_Cell]
    is_theirs: bool


class _Plot(NamedTuple):
    title: str
    data: str


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A section as the template shows it. legend: how its cells are read."""

    title: str
    columns: Sequence[_Column]
    rows: Sequence[_Row]
    legend: Sequence[str]


def _laid_out(section: Section) -> _Table:
    rows, names = section.rows, shown_columns(section.rows)
    marks = ranks(rows, section.within)
    numeric = {name: is_numeric(rows, name) for name in names}

    def cell(index: int, row: TableRow, name: str) -> _Cell:
        # mean and interval stay on one line; in a narrow column the deviation goes below them
        text = full_text(row, name).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
        return _Cell(text, marks.get((index, name)), numeric[name])

    return _Table(
        title=section.title,
        columns=[_Column(arrow_heading(name), numeric[name]) for name in names],
        rows=[
            _Row([cell(index, row, name) for name in names], bool(row.get("source"))) for index, row in enumerate(rows)
        ],
        legend=_legend(rows, {*marks.values()}),
    )


def _legend(rows: Sequence[TableRow], given: Set[int]) -> list[str]:
    """Returns how the cells are read. given: the ranks that are marked."""
    names = {1: "bold: the best", 2: "underlined: the second best"}
    return cell_notes(rows) + [name for rank, name in names.items() if rank in given]


def _plot_notes(charts: Sequence[Chart]) -> list[str]:
    if not charts:
        return []
    if reason := missing():
        return [reason]
    return ["bands: 95 % interval of the mean"] if has_bands(charts) else []


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# --- Pictures
class _Shown(NamedTuple):
    """What a cell shows: a data URI (none: an empty cell) and the text under it."""

    uri: str | None
    caption: str


@dataclass(frozen=True, kw_only=True)
class _Task:
    """The pictures of a task: its columns, and rows (image, cells); note: what was done to fit them in."""

    name: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[_Shown]]]
    note: str


def _pictures(cases: Sequence[Case], max_bytes: int) -> list[_Task]:
    """Returns every case's pictures as data URIs that fit into max_bytes, by task."""
    encoded: list[list[_Shown]] = []
    columns = {
        task: case_columns([case for case in cases if case.task == task])
        for task in dict.fromkeys(case.task for case in cases)
    }
    side, quality = _QUALITIES[0]
    for side, quality in _QUALITIES:
        encoded = [_encoded(case, columns[case.task], side, quality) for case in cases]
        if sum(map(_size, encoded)) <= max_bytes:
            break
    kept = _fitting(cases, encoded, max_bytes)
    tasks = []
    for task, names in columns.items():
        here = [index for index, case in enumerate(cases) if case.task == task]
        shown = [index for index in here if index in kept]
        note = f"JPEG of quality {quality}, larger pictures reduced to {side} px: not for measuring; click to enlarge"
        if len(shown) < len(here):
            note += f"; {len(here) - len(shown)} of {len(here)} images left out to keep the page small"
        rows = [(cases[index].image, encoded[index]) for index in shown]
        tasks.append(_Task(name=task, columns=names, rows=rows, note=note))
    return tasks


def _fitting(cases: Sequence[Case], encoded: Sequence[Sequence[_Shown]], max_bytes: int) -> set[int]:
    """Returns the indices of the cases that fit: the first of every task, then the second of every task, and so on."""
    place: dict[str, int] = {}
    order = []
    for index, case in enumerate(cases):
        order.append((place.setdefault(case.task, 0), index))
        place[case.task] += 1
    kept, total = set(), 0
    for _, index in sorted(order):
        total += _size(encoded[index])
        if total > max_bytes:
            break
        kept.add(index)
    return kept


def _size(shown: Sequence[_Shown]) -> int:
    return sum(len(cell.uri or "") for cell in shown)


def _encoded(case: Case, columns: Sequence[str], side: int, quality: int) -> list[_Shown]:
    cells = []
    for shot in case_shots(case, columns):
        image = shot and shot.opened()
        uri = _data_uri(image, side, quality) if image else None
        cells.append(_Shown(uri, shot.caption() if shot else ""))
    return cells


def _data_uri(image: Image.Image, side: int, quality: int) -> str:
    """Returns the picture as JPEG, no side longer than `side` px, in base64."""
    from PIL import Image

    small = image.convert("RGB")
    if max(small.size) > side:
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{_base64(data.getvalue())}"
