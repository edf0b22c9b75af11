"""A run as one HTML file: tables, protocol, pictures, plots. Nothing is fetched and no script runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from html import escape
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
    from PIL import Image


MAX_BYTES = 9_500_000  # of the pictures, in base64: the page stays under 10 MB
_QUALITIES = ((256, 85), (256, 70), (192, 70), (128, 70))  # (longest side px, JPEG quality), the first that fits


# .wide: a shadow where a table goes on (backgrounds that scroll cover those that do not)
_STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--faint:#6b6b6b;--line:#d0d0d0;--box:#f6f6f6;--shade:#0004;
--mark:#0072b2}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#16181b;--faint:#a0a4a8;--line:#3a3d41;--box:#202327;
--shade:#0009;--mark:#56b4e9}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;
max-width:96rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
.wide{position:relative;overflow-x:auto;
background:linear-gradient(90deg,var(--paper) 40%,transparent) 0 0/48px 100% no-repeat local,
linear-gradient(270deg,var(--paper) 40%,transparent) 100% 0/48px 100% no-repeat local,
linear-gradient(90deg,var(--shade),transparent) 0 0/14px 100% no-repeat,
linear-gradient(270deg,var(--shade),transparent) 100% 0/14px 100% no-repeat}
table{border-collapse:collapse;margin:.6rem 0}
.scores th,.scores td{padding:.2rem .5rem;border-bottom:1px solid var(--line);text-align:left}
.scores th{vertical-align:bottom}
.scores td:not(.number){white-space:nowrap}
.scores .number{text-align:right;font-variant-numeric:tabular-nums}
.scores tr.theirs{color:var(--faint);font-style:italic}
.scores .second{text-decoration:underline}
.note{color:var(--faint);font-size:.87rem;max-width:75em}
.shots th,.shots td{padding:.25rem;max-width:160px;text-align:center;
vertical-align:top;font-weight:normal;font-size:.82rem}
.shots th[scope=row]{min-width:6em;max-width:9em;overflow-wrap:anywhere;vertical-align:middle}
.shots img{width:160px;height:160px;object-fit:contain;display:block;cursor:zoom-in}
.shots input{position:absolute;opacity:0}
.shots input:focus-visible+img{outline:2px solid var(--mark)}
.shots input:checked+img{position:fixed;inset:0;width:100vw;height:100vh;z-index:9;background:var(--paper);
image-rendering:pixelated;cursor:zoom-out}
.plots img{background:#fff;max-width:100%;height:auto;margin:.5rem 1rem .5rem 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8rem;background:var(--box);padding:.8rem}
@media(max-width:40rem){body{margin:1rem auto;padding:0 .6rem}.shots th,.shots td{max-width:120px}
.shots img{width:120px;height:120px}}
"""


# what the page may load: its own pictures and style, nothing else, whatever a text in it should say
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    pictures = _pictures(cases, max_bytes)
    body = [
        f"<h1>{_safe(title)}</h1>",
        *(part for section in sections for part in _section(section)),
        *(f'<p class="note">{_safe(note)}</p>' for note in notes),
        *_plots(charts),
        *_shots(pictures),
        *_facts(facts),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_safe(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def _safe(text: str) -> str:
    """Returns it escaped, without what a terminal would obey; bytes that are no UTF-8 as a replacement character."""
    return escape(stripped(text).encode("utf-8", "replace").decode("utf-8"))


# --- Tables and plots
def _section(section: Section) -> Iterator[str]:
    rows, names = section.rows, shown_columns(section.rows)
    marks = ranks(rows, section.within)
    yield f"<h2>{_safe(section.title)}</h2>"
    yield '<div class="wide"><table class="scores">'
    sides = {name: ' class="number"' if is_numeric(rows, name) else "" for name in names}
    heads = "".join(f'<th scope="col"{sides[name]}>{_safe(arrow_heading(name))}</th>' for name in names)
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for index, row in enumerate(rows):
        cells = (f"<td{sides[name]}>{_marked(full_text(row, name), marks.get((index, name)))}</td>" for name in names)
        theirs = ' class="theirs"' if row.get("source") else ""
        yield f"<tr{theirs}>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    if legend := _legend(rows, {*marks.values()}):
        yield f'<p class="note">{_safe("; ".join(legend))}</p>'


def _legend(rows: Sequence[TableRow], given: Set[int]) -> list[str]:
    """Returns how the cells are read. given: the ranks that are marked."""
    names = {1: "bold: the best", 2: "underlined: the second best"}
    return cell_notes(rows) + [name for rank, name in names.items() if rank in given]


def _marked(text: str, rank: int | None) -> str:
    # mean and interval stay on one line; in a narrow column the deviation goes below them
    safe = _safe(text).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return f"<strong>{safe}</strong>" if rank == 1 else f'<span class="second">{safe}</span>' if rank == 2 else safe


def _plots(charts: Sequence[Chart]) -> Iterator[str]:
    if charts:
        yield "<h2>Plots</h2>"
        notes = [missing()] if missing() else ["bands: 95 % interval of the mean"] if has_bands(charts) else []
        yield from (f'<p class="note">{_safe(note)}</p>' for note in notes)
        if not missing():
            yield f'<div class="plots">{"".join(map(_plot, charts))}</div>'


def _plot(chart: Chart) -> str:
    """Returns a picture of its own: no part of it has to do with the page's or another plot's."""
    data = base64.b64encode(svg(chart).encode()).decode("ascii")
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{_safe(chart.title)}">'


def _facts(facts: Mapping[str, Any] | None) -> Iterator[str]:
    if facts:
        yield f"<details><summary>Configuration</summary><pre>{_safe(json_text(facts))}</pre></details>"


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
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _shots(tasks: Sequence[_Task]) -> Iterator[str]:
    for task in tasks:
        yield f"<h2>Pictures: {_safe(task.name)}</h2>"
        yield f'<p class="note">{_safe(task.note)}</p>'
        heads = "".join(f'<th scope="col">{_safe(label)}</th>' for label in task.columns)
        yield f'<div class="wide"><table class="shots"><thead><tr><td></td>{heads}</tr></thead><tbody>'
        for image, cells in task.rows:
            shown = "".join(
                f"<td>{_zoomable(cell, f'{image}, {label}')}</td>"
                for cell, label in zip(cells, task.columns, strict=True)
            )
            yield f'<tr><th scope="row">{_safe(image)}</th>{shown}</tr>'
        yield "</tbody></table></div>"


def _zoomable(cell: _Shown, name: str) -> str:
    """Returns a picture that a click, or the space bar, makes as large as the window.

    A check box and the style alone.
    """
    if cell.uri is None:
        return "no picture"
    picture = f'<label><input type="checkbox" aria-label="enlarge {_safe(name)}"><img src="{cell.uri}" alt=""></label>'
    return picture + "<br>".join(map(_safe, cell.caption.split("  ")))
