"""Rows of numbers as a console table, CSV, JSON and Markdown; pictures side by side as a contact sheet.

A row is a flat mapping from column name to value. What people read labels and rounds metrics as METRICS says; CSV and
JSON hold every digit. None is a value that is not there: an empty cell, null.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from statistics import fmean
from typing import TYPE_CHECKING, Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dmps_cli.metrics import METRICS

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Value = str | int | float | None
Row = Mapping[str, Value]

_LEAST_TEXT = 12  # characters of a text column that a narrow terminal leaves
_ANY_WIDTH = 100_000


# --- Rows


def column_names(rows: Sequence[Row]) -> list[str]:
    """Every column, in the order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def means(rows: Sequence[Row], by: Sequence[str], values: Sequence[str]) -> list[dict[str, Value]]:
    """One row per group: its key, n = how many rows it has, the arithmetic mean of each of `values`.

    by: columns that make a group; none for one group of all. What a row lacks of them is None. A value that some row of
    the group lacks has no mean (None), so that every mean is over n rows. Groups come in the order of first appearance.
    """
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    return [
        {**dict(zip(by, key, strict=True)), "n": len(members), **{name: _mean(members, name) for name in values}}
        for key, members in groups.items()
    ]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    numbers = [value for row in rows if isinstance(value := row.get(name), int | float)]
    return fmean(numbers) if len(numbers) == len(rows) else None


def best(rows: Sequence[Row], within: Sequence[str]) -> set[tuple[int, str]]:
    """(row, metric) of each metric's best among the rows that agree in the columns `within`.

    All that look equal to the best as printed are best. A row without a rival is not.
    """
    groups: dict[tuple[Value, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(row.get(name) for name in within), []).append(index)
    return {place for group in groups.values() for name in METRICS for place in _best_of(rows, group, name)}


def _best_of(rows: Sequence[Row], group: Sequence[int], name: str) -> Iterator[tuple[int, str]]:
    numbers = {index: value for index in group if isinstance(value := rows[index].get(name), int | float)}
    if len(numbers) < 2:
        return
    top = (max if METRICS[name].higher_is_better else min)(numbers.values())
    yield from ((index, name) for index, value in numbers.items() if cell_text(name, value) == cell_text(name, top))


def heading(name: str) -> str:
    """A column's heading: 'PSNR dB' for psnr, other names as they are."""
    metric = METRICS.get(name)
    return f"{metric.label} {metric.unit}".rstrip() if metric else name


def cell_text(name: str, value: Value) -> str:
    """A value as people read it: a metric with its digits, another float with four figures."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if name in METRICS:
        return METRICS[name].text(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(row.get(name), int | float | None) for row in rows)


# --- Formats


def console_table(rows: Sequence[Row], *, title: str | None = None, best_within: Sequence[str] | None = None) -> Table:
    """A rich table: numbers to the right and never cut, texts folded where the terminal is narrow.

    best_within: with these columns equal, the best of each metric is marked with a star (see `best`).
    """
    marked = set() if best_within is None else best(rows, best_within)
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    columns = {name: _starred_column(rows, name, marked) for name in column_names(rows)}
    for name, texts in columns.items():
        widest = max(map(len, (heading(name), *texts)))
        if _is_numeric(rows, name):
            table.add_column(Text(heading(name)), justify="right", no_wrap=True, min_width=widest)
        else:
            table.add_column(Text(heading(name)), overflow="fold", min_width=min(widest, _LEAST_TEXT))
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))  # Text: square brackets of file names are not markup
    return table


def _starred_column(rows: Sequence[Row], name: str, marked: set[tuple[int, str]]) -> list[str]:
    # the star in front: behind, it would push the digits out of line
    return ["*" * ((index, name) in marked) + cell_text(name, row.get(name)) for index, row in enumerate(rows)]


def console_text(table: Table, stream: TextIO) -> str:
    """The table as it is to be written to the stream, without the last line end.

    On a terminal: in its colours and width; if its numbers need more, the terminal will break the lines. Elsewhere:
    plain, and as wide as the table is. Nothing is ever cut.
    """
    console = Console(file=stream)
    needed = Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table)
    console.width = max(console.width, needed.minimum) if stream.isatty() else needed.maximum
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV with a header (RFC 4180, but lines end in a bare line feed), floats in full.

    What a row lacks is an empty cell; infinity and NaN are inf, -inf and nan.
    """
    text = StringIO()
    writer = csv.DictWriter(text, column_names(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_text(content: Mapping[str, Any]) -> str:
    """One strict JSON object, floats in full, without the last line end.

    Infinity and NaN, which JSON lacks, are the strings 'inf', '-inf' and 'nan': what CSV says and float() reads back.
    """
    return json.dumps(_strict(content), indent=1, allow_nan=False, ensure_ascii=False)


def _strict(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value


def markdown(rows: Sequence[Row], *, best_within: Sequence[str] | None = None) -> str:
    """The rows as a GitHub table, padded to be read as text too; the best (see `best`) in bold.

    An arrow in the heading of a metric says which way is better.
    """
    marked = set() if best_within is None else best(rows, best_within)
    columns = []
    for name in column_names(rows):
        texts = [_markdown_cell(name, row.get(name), (index, name) in marked) for index, row in enumerate(rows)]
        columns.append(_markdown_column(_markdown_heading(name), texts, to_the_right=_is_numeric(rows, name)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def _markdown_heading(name: str) -> str:
    metric = METRICS.get(name)
    return _escape(heading(name)) + ("" if metric is None else " ↑" if metric.higher_is_better else " ↓")


def _markdown_cell(name: str, value: Value, is_best: bool) -> str:
    text = _escape(cell_text(name, value))
    return f"**{text}**" if is_best else text


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _markdown_column(head: str, texts: Sequence[str], *, to_the_right: bool) -> list[str]:
    width = max(3, *map(len, (head, *texts)))
    rule = "-" * (width - 1) + ":" if to_the_right else "-" * width
    pad = str.rjust if to_the_right else str.ljust
    return [pad(head, width), rule, *(pad(text, width) for text in texts)]


# --- Contact sheet

INK, FAINT, HAIRLINE, PAPER = "#1a1a1a", "#6b6b6b", "#d0d0d0", "#ffffff"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the sheet, of any size and mode, and the line under it."""

    image: Image.Image
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A row of the sheet: a label (the task) with a fainter note below it (the picture's name); None: an empty cell."""

    label: str
    note: str = ""
    pictures: Sequence[Picture | None]


def score_caption(row: Row, names: Sequence[str] = ("psnr", "lpips")) -> str:
    """'PSNR 27.31 dB  LPIPS 0.1234': the metrics that the row has."""
    parts = [(METRICS[name], value) for name in names if isinstance(value := row.get(name), int | float)]
    return "  ".join(f"{metric.label} {metric.text(value)} {metric.unit}".rstrip() for metric, value in parts)


def contact_sheet(
    columns: Sequence[str], rows: Sequence[SheetRow], *, cell: int | None = None, footnote: str = ""
) -> Image.Image:
    """A labelled grid of pictures on white, RGB.

    Each picture is fitted into a square of `cell` px (default: the longest side of all, at least 128): enlarged by
    nearest neighbour, so that a measurement's pixels stay visible, reduced by Lanczos, unchanged where its longer side
    is `cell`. footnote: a line or more under the grid. Raises ValueError if a row has not one picture per column.
    """
    from PIL import Image, ImageDraw

    for row in rows:
        if len(row.pictures) != len(columns):
            raise ValueError(f"row '{row.label}' has {len(row.pictures)} pictures for {len(columns)} columns")
    sides = [side for row in rows for picture in row.pictures if picture for side in picture.image.size]
    grid = _Grid(columns, [_fitted(row, cell or max(128, *sides, 0)) for row in rows], cell or max(128, *sides, 0))
    sheet = Image.new("RGB", grid.size(footnote), PAPER)
    grid.draw(sheet, ImageDraw.Draw(sheet), footnote)
    return sheet


def _fitted(row: SheetRow, cell: int) -> SheetRow:
    from PIL import Image

    def fit(picture: Picture) -> Picture:
        scale = cell / max(picture.image.size)
        size = (max(1, round(picture.image.width * scale)), max(1, round(picture.image.height * scale)))
        kernel = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        rgb = picture.image.convert("RGB")
        return Picture(image=rgb if size == rgb.size else rgb.resize(size, kernel), caption=picture.caption)

    return SheetRow(label=row.label, note=row.note, pictures=[picture and fit(picture) for picture in row.pictures])


class _Grid:
    """Where everything goes, in px, for pictures already at their final size."""

    def __init__(self, columns: Sequence[str], rows: Sequence[SheetRow], cell: int) -> None:
        self.columns, self.rows = columns, rows
        base = max(12, round(cell / 17))
        self.title_font, self.text_font = _font(round(1.2 * base)), _font(base)
        self.small_font = _font(max(11, round(0.8 * base)))
        self.gap, self.margin = max(6, round(cell / 24)), max(12, round(cell / 10))
        self.column_widths = [self._column_width(index, cell) for index in range(len(columns))]
        self.row_heights = [max((p.image.height for p in row.pictures if p), default=cell) for row in rows]
        self.labels = [_wrap(row.label, self.title_font, cell) for row in rows]
        self.notes = [_wrap(row.note, self.text_font, cell) for row in rows]
        self.gutter = self._gutter_width()
        self.head = _line_height(self.title_font) + self.gap if any(columns) else 0
        has_captions = any(picture.caption for row in rows for picture in row.pictures if picture)
        self.foot = self.gap // 2 + _line_height(self.text_font) if has_captions else 0

    def _column_width(self, index: int, cell: int) -> int:
        captions = [picture.caption for row in self.rows if (picture := row.pictures[index])]
        widths = [_width(caption, self.text_font) for caption in captions]
        return max(cell, _width(self.columns[index], self.title_font), *widths, 0)

    def _gutter_width(self) -> int:
        labels = [_width(line, self.title_font) for lines in self.labels for line in lines]
        notes = [_width(line, self.text_font) for lines in self.notes for line in lines]
        widest = max([*labels, *notes], default=0)
        return widest + 2 * self.gap if widest else 0

    def _footnote_lines(self, footnote: str) -> list[str]:
        return _wrap(footnote, self.small_font, self._width() - 2 * self.margin)

    def _width(self) -> int:
        return 2 * self.margin + self.gutter + sum(self.column_widths) + self.gap * (len(self.columns) - 1)

    def size(self, footnote: str) -> tuple[int, int]:
        """(width, height) of the sheet."""
        rows = sum(self.row_heights) + len(self.rows) * self.foot + (len(self.rows) - 1) * self._row_gap()
        lines = self._footnote_lines(footnote)
        note = len(lines) * _line_height(self.small_font) + 2 * self.gap if lines else 0
        return self._width(), 2 * self.margin + self.head + rows + note

    def _row_gap(self) -> int:
        return 2 * self.gap if self.foot else self.gap

    def draw(self, sheet: Image.Image, pen: ImageDraw, footnote: str) -> None:
        """Column labels, rows, footnote."""
        left = self.margin + self.gutter
        for label, width, x in zip(self.columns, self.column_widths, self._column_lefts(left), strict=True):
            pen.text((x + width / 2, self.margin), label, INK, self.title_font, anchor="ma")
        y = self.margin + self.head
        for index, height in enumerate(self.row_heights):
            self._draw_label(pen, index, y)
            for picture, width, x in zip(
                self.rows[index].pictures, self.column_widths, self._column_lefts(left), strict=True
            ):
                if picture:
                    self._draw_picture(sheet, pen, picture, (x, y, width, height))
            y += height + self.foot + self._row_gap()
        y += 2 * self.gap - self._row_gap()
        _draw_lines(pen, (self.margin, y), self._footnote_lines(footnote), FAINT, self.small_font)

    def _column_lefts(self, left: int) -> Iterator[int]:
        for width in self.column_widths:
            yield left
            left += width + self.gap

    def _draw_label(self, pen: ImageDraw, index: int, top: int) -> None:
        height = len(self.labels[index]) * _line_height(self.title_font)
        height += len(self.notes[index]) * _line_height(self.text_font)
        y = top + (self.row_heights[index] - height) // 2
        y = _draw_lines(pen, (self.margin, y), self.labels[index], INK, self.title_font)
        _draw_lines(pen, (self.margin, y), self.notes[index], FAINT, self.text_font)

    def _draw_picture(
        self, sheet: Image.Image, pen: ImageDraw, picture: Picture, box: tuple[int, int, int, int]
    ) -> None:
        x, y, width, height = box
        left, top = x + (width - picture.image.width) // 2, y + (height - picture.image.height) // 2
        right, bottom = left + picture.image.width, top + picture.image.height
        pen.rectangle((left - 1, top - 1, right, bottom), outline=HAIRLINE)  # around the pixels, not over them
        sheet.paste(picture.image, (left, top))
        pen.text((x + width / 2, y + height + self.gap // 2), picture.caption, FAINT, self.text_font, anchor="ma")


def _font(size: int) -> FreeTypeFont:
    """Pillow's own font (Aileron) in px."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what a size asks for; without FreeType Pillow raises
    return font


def _line_height(font: FreeTypeFont) -> int:
    return round(1.3 * font.size)


def _width(text: str, font: FreeTypeFont) -> int:
    return math.ceil(font.getlength(text))


def _wrap(text: str, font: FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width` px, broken at spaces, or within a word that is too long by itself."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", font) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _broken(word, font, width)
    return lines


def _broken(word: str, font: FreeTypeFont, width: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and _width(pieces[-1] + letter, font) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _draw_lines(pen: ImageDraw, at: tuple[int, int], lines: Sequence[str], colour: str, font: FreeTypeFont) -> int:
    """Draws the lines below each other; the y of the next."""
    x, y = at
    for line in lines:
        pen.text((x, y), line, colour, font, anchor="la")
        y += _line_height(font)
    return y
