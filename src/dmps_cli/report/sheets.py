"""Pictures side by side, labelled: contact sheets, of pictures in memory or of a run's files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dmps_cli.errors import InputError
from dmps_cli.files.reading import open_regular
from dmps_cli.metrics.table import METRICS
from dmps_cli.report.tables import TableRow

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont


MAX_COLUMNS = 8
MAX_CELL = 1024  # px
INK, FAINT, HAIRLINE, PAPER = "#1a1a1a", "#6b6b6b", "#d0d0d0", "#ffffff"


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """A picture of the sheet, of any size and mode, and the line under it."""

    image: Image.Image
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A row of the sheet: a label (the task) with a fainter note below it (the picture's name); None: an empty cell."""

    label: str
    note: str = ""
    pictures: Sequence[SheetCell | None]


def score_caption(row: TableRow, names: Sequence[str] = ("psnr", "lpips")) -> str:
    """Returns 'PSNR 27.31 dB  LPIPS 0.1234': the metrics that the row has."""
    parts = [(METRICS[name], value) for name in names if isinstance(value := row.get(name), int | float)]
    return "  ".join(f"{metric.label} {metric.text(value)} {metric.unit}".rstrip() for metric, value in parts)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture of a run: a file (or the picture itself), the row of scores that belongs to it, if any, and a note."""

    picture: Path | Image.Image
    row: TableRow = field(default_factory=dict)
    note: str = ""

    def caption(self, names: Sequence[str] = ("psnr", "lpips")) -> str:
        """Returns what stands under it: these of its scores, its note."""
        return "  ".join(filter(None, (score_caption(self.row, names), self.note)))

    def opened(self) -> Image.Image | None:
        """Returns the picture; None where its file is not there or holds none that can be read."""
        from dmps_cli.files.images import opened

        if not isinstance(self.picture, Path):
            return self.picture
        try:
            with open_regular(self.picture) as file, opened(file, self.picture) as image:
                return image.convert("RGB")
        except (OSError, InputError):
            return None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image of one task: the truth, the measurement, the restorations under the labels of their columns."""

    task: str
    image: str
    truth: Shot | None
    measurement: Shot | None
    restored: Mapping[str, Shot]


def case_columns(cases: Sequence[Case]) -> list[str]:
    """Labels of the columns: truth and measurement, then every restoration's in the order of first appearance.

    Without truth where no case has one.
    """
    truth = ["truth"] if any(case.truth for case in cases) else []
    return [*truth, "measurement", *dict.fromkeys(label for case in cases for label in case.restored)]


def case_shots(case: Case, columns: Sequence[str]) -> list[Shot | None]:
    """Returns the pictures of a case under these columns; None where it has none."""
    shots = {"truth": case.truth, "measurement": case.measurement}
    return [shots[label] if label in shots else case.restored.get(label) for label in columns]


def task_sheet(
    cases: Sequence[Case], *, metrics: Sequence[str] = ("psnr", "lpips"), cell: int | None = None, footnote: str = ""
) -> Image.Image:
    """Returns one task's contact sheet: a row per image; truth, measurement and each method with its scores under it.

    A cell whose file is missing stays empty.
    """
    columns = case_columns(cases)

    def picture(shot: Shot | None) -> SheetCell | None:
        image = shot and shot.opened()
        return SheetCell(image=image, caption=shot.caption(metrics)) if shot and image else None

    rows = [
        SheetRow(label=case.task, note=case.image, pictures=[*map(picture, case_shots(case, columns))])
        for case in cases
    ]
    return contact_sheet(columns, rows, cell=cell, footnote=footnote)


def contact_sheet(
    columns: Sequence[str], rows: Sequence[SheetRow], *, cell: int | None = None, footnote: str = ""
) -> Image.Image:
    """Returns a labelled grid of pictures on white, RGB; more than MAX_COLUMNS columns go on in a grid below.

    Each picture is fitted into a square of `cell` px (default: the longest side of all, 128 to MAX_CELL): enlarged by
    nearest neighbour, so that a measurement's pixels stay visible, reduced by Lanczos, unchanged where its longer side
    is `cell`. footnote: a line or more under the grid. Raises ValueError if a row has not one picture per column.
    """
    from PIL import Image, ImageDraw

    for row in rows:
        if len(row.pictures) != len(columns):
            raise ValueError(f"row '{row.label}' has {len(row.pictures)} pictures for {len(columns)} columns")
    sides = [side for row in rows for picture in row.pictures if picture for side in picture.image.size]
    cell = cell or min(MAX_CELL, max(128, *sides))
    fitted = [_fitted(row, cell) for row in rows]
    grids = [
        _Grid(columns[part], [replace(row, pictures=row.pictures[part]) for row in fitted], cell)
        for part in _parts(len(columns))
    ]
    margin, gap, font = max(12, round(cell / 10)), 2 * grids[0].gap, grids[0].small_font
    width = max(grid.width for grid in grids) + 2 * margin
    lines = _wrap(footnote, font, width - 2 * margin)
    height = 2 * margin + sum(grid.height for grid in grids) + gap * (len(grids) - 1)
    sheet = Image.new("RGB", (width, height + (gap + len(lines) * _line_height(font) if lines else 0)), PAPER)
    pen, y = ImageDraw.Draw(sheet), margin
    for grid in grids:
        grid.draw(sheet, pen, (margin, y))
        y += grid.height + gap
    _draw_lines(pen, (margin, y), lines, FAINT, font)
    return sheet


def _parts(count: int) -> list[slice]:
    """Returns the columns of each grid: as many in each as can be, MAX_COLUMNS at most."""
    grids = max(1, math.ceil(count / MAX_COLUMNS))
    width = max(1, math.ceil(count / grids))
    return [slice(start, start + width) for start in range(0, max(count, 1), width)]


def _fitted(row: SheetRow, cell: int) -> SheetRow:
    from PIL import Image

    def fit(picture: SheetCell) -> SheetCell:
        scale = cell / max(picture.image.size)
        size = (max(1, round(picture.image.width * scale)), max(1, round(picture.image.height * scale)))
        kernel = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        rgb = picture.image.convert("RGB")
        return SheetCell(image=rgb if size == rgb.size else rgb.resize(size, kernel), caption=picture.caption)

    return SheetRow(label=row.label, note=row.note, pictures=[picture and fit(picture) for picture in row.pictures])


class _Grid:
    """Where everything goes, in px, for pictures already at their final size. Columns are `cell` px wide."""

    def __init__(self, columns: Sequence[str], rows: Sequence[SheetRow], cell: int) -> None:
        self.rows, self.cell = rows, cell
        base = max(12, round(cell / 17))
        self.title_font, self.text_font = _font(round(1.2 * base)), _font(base)
        self.small_font = _font(max(11, round(0.8 * base)))
        self.gap = max(6, round(cell / 24))
        self.heads = [_wrap(label, self.title_font, cell) for label in columns]
        self.labels = [_wrap(row.label, self.title_font, cell) for row in rows]
        self.notes = [_wrap(row.note, self.text_font, cell) for row in rows]
        self.captions = [[self._caption(picture) for picture in row.pictures] for row in rows]
        self.row_heights = [max((p.image.height for p in row.pictures if p), default=cell) for row in rows]
        self.feet = [self._foot(captions) for captions in self.captions]
        self.gutter = self._gutter_width()
        self.head = max(map(len, self.heads), default=0) * _line_height(self.title_font)
        self.head += self.gap if self.head else 0
        self.row_gap = 2 * self.gap if any(self.feet) else self.gap

    def _caption(self, picture: SheetCell | None) -> list[str]:
        """Returns the lines under a picture: one if it has room, else one for each score and more for a long one."""
        caption = picture.caption if picture else ""
        if not caption or _width(caption, self.text_font) <= self.cell:
            return [caption] if caption else []
        return [line for part in caption.split("  ") for line in _wrap(part, self.text_font, self.cell)]

    def _foot(self, captions: Sequence[Sequence[str]]) -> int:
        lines = max(map(len, captions), default=0)
        return self.gap // 2 + lines * _line_height(self.text_font) if lines else 0

    def _gutter_width(self) -> int:
        labels = [_width(line, self.title_font) for lines in self.labels for line in lines]
        notes = [_width(line, self.text_font) for lines in self.notes for line in lines]
        widest = max([*labels, *notes], default=0)
        return widest + 2 * self.gap if widest else 0

    @property
    def width(self) -> int:
        """px, without margins."""
        return self.gutter + self.cell * len(self.heads) + self.gap * (len(self.heads) - 1)

    @property
    def height(self) -> int:
        """px, without margins."""
        return self.head + sum(self.row_heights) + sum(self.feet) + (len(self.rows) - 1) * self.row_gap

    def draw(self, sheet: Image.Image, pen: ImageDraw, corner: tuple[int, int]) -> None:
        """Draws column labels and rows, from the corner (left, top)."""
        left, top = corner
        xs = [left + self.gutter + k * (self.cell + self.gap) for k in range(len(self.heads))]
        for lines, x in zip(self.heads, xs, strict=True):
            _draw_lines(pen, (x + self.cell / 2, top), lines, INK, self.title_font, anchor="ma")
        y = top + self.head
        for index, height in enumerate(self.row_heights):
            self._draw_label(pen, index, (left, y))
            for picture, caption, x in zip(self.rows[index].pictures, self.captions[index], xs, strict=True):
                if picture:
                    self._draw_picture(sheet, pen, picture, (x, y, height))
                    at = (x + self.cell / 2, y + height + self.gap // 2)
                    _draw_lines(pen, at, caption, FAINT, self.text_font, anchor="ma")
            y += height + self.feet[index] + self.row_gap

    def _draw_label(self, pen: ImageDraw, index: int, corner: tuple[int, int]) -> None:
        height = len(self.labels[index]) * _line_height(self.title_font)
        height += len(self.notes[index]) * _line_height(self.text_font)
        left, y = corner[0], corner[1] + (self.row_heights[index] - height) // 2
        y = _draw_lines(pen, (left, y), self.labels[index], INK, self.title_font)
        _draw_lines(pen, (left, y), self.notes[index], FAINT, self.text_font)

    def _draw_picture(self, sheet: Image.Image, pen: ImageDraw, picture: SheetCell, box: tuple[int, int, int]) -> None:
        x, y, height = box
        left, top = x + (self.cell - picture.image.width) // 2, y + (height - picture.image.height) // 2
        right, bottom = left + picture.image.width, top + picture.image.height
        pen.rectangle((left - 1, top - 1, right, bottom), outline=HAIRLINE)  # around the pixels, not over them
        sheet.paste(picture.image, (left, top))


def _font(size: int) -> FreeTypeFont:
    """Returns Pillow's own font (Aileron) in px."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what a size asks for; without FreeType Pillow raises
    return font


def _line_height(font: FreeTypeFont) -> int:
    return round(1.3 * font.size)


def _width(text: str, font: FreeTypeFont) -> int:
    return math.ceil(font.getlength(text))


def _wrap(text: str, font: FreeTypeFont, width: int) -> list[str]:
    """Returns lines no wider than `width` px, broken at spaces, or within a word that is too long by itself."""
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


def _draw_lines(
    pen: ImageDraw,
    at: tuple[float, int],
    lines: Sequence[str],
    colour: str,
    font: FreeTypeFont,
    anchor: Literal["la", "ma"] = "la",
) -> int:
    """Draws the lines below each other; the y of the next."""
    x, y = at
    for line in lines:
        pen.text((x, y), line, colour, font, anchor=anchor)
        y += _line_height(font)
    return y
